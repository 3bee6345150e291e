"""afm.distillation_loss against probabilities in float64, its gradient, its limits and its refusals."""

import afm
import pytest
import torch
from afm import _core
from torch.nn.functional import binary_cross_entropy_with_logits

ROWS = 50


@pytest.fixture
def rows():
    """Student, teacher and labels; the teacher is right on some rows and wrong on others."""
    generator = torch.Generator().manual_seed(4)
    student, teacher = (2 * torch.randn(ROWS, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = (torch.rand(ROWS, generator=generator) < 0.3).double()
    return student.requires_grad_(), teacher, labels


def kl_of_probabilities(teacher, student, temperature):
    p, q = torch.sigmoid(teacher / temperature), torch.sigmoid(student / temperature)
    return temperature**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_it_is_logloss_plus_the_weighted_divergence(rows, temperature, weight):
    student, teacher, labels = rows
    divergence = kl_of_probabilities(teacher, student, temperature).mean()
    assert divergence > 0.1
    loss = afm.distillation_loss(student, teacher, labels, temperature=temperature, weight=weight)
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(student, labels) + weight * divergence)
    without = afm.distillation_loss(student, teacher, temperature=temperature, weight=weight)
    torch.testing.assert_close(without, weight * divergence)


@pytest.mark.parametrize("click_rate", [None, 0.6])
def test_label_preservation_weighs_the_rows_where_the_teacher_is_right(rows, click_rate):
    student, teacher, labels = rows
    rate = labels.mean() if click_rate is None else click_rate
    right = (teacher.sigmoid() - rate) * (labels - rate) > 0
    assert 0.2 < right.double().mean() < 0.8
    divergence = kl_of_probabilities(teacher, student, 2.0)
    loss = afm.distillation_loss(
        student, teacher, labels, temperature=2.0, weight=0.5, label_preserving=3.0, click_rate=click_rate
    )
    expected = binary_cross_entropy_with_logits(student, labels) + ((0.5 + 3.0 * right) * divergence).mean()
    torch.testing.assert_close(loss, expected)
    only = afm.distillation_loss(student, teacher, labels, temperature=2.0, weight=0.0, label_preserving=3.0)
    assert not torch.isclose(only, afm.distillation_loss(student, teacher, labels, temperature=2.0, weight=3.0))


def test_gradients(rows):
    student, teacher, labels = rows
    options = {"temperature": 2.0, "weight": 0.7, "label_preserving": 1.5}
    assert torch.autograd.gradcheck(lambda s: afm.distillation_loss(s, teacher, labels, **options), (student,))
    afm.distillation_loss(student, teacher, temperature=2.0).backward()
    expected = 2.0 * (torch.sigmoid(student / 2) - torch.sigmoid(teacher / 2)) / ROWS
    torch.testing.assert_close(student.grad, expected.detach())


def test_the_trainer_of_libafm_has_the_same_divergence(rows):
    student, teacher, labels = rows
    expected = _core.distillation_loss(student, teacher, 3.0)
    torch.testing.assert_close(afm.distillation_loss(student, teacher, temperature=3.0), expected)
    right = ((teacher.sigmoid() > labels.mean()) == (labels > labels.mean())).double()
    loss = afm.distillation_loss(student, teacher, labels, temperature=3.0, weight=0.5, label_preserving=2.0)
    expected = afm.logloss_of(student, labels) + _core.distillation_loss(student, teacher, 3.0, 0.5 + 2.0 * right)
    torch.testing.assert_close(loss, expected)


def test_the_teacher_gets_no_gradient(rows):
    student, teacher, labels = rows
    teacher.requires_grad_()
    afm.distillation_loss(student, [teacher, teacher], labels, label_preserving=1.0).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_several_teachers_are_one_with_the_mean_of_their_logits(rows):
    student, teacher, labels = rows
    others = [teacher, 3 * teacher, teacher - 1]
    loss = afm.distillation_loss(student, others, labels, temperature=3.0)
    mean = sum(others) / 3
    torch.testing.assert_close(loss, afm.distillation_loss(student, mean, labels, temperature=3.0))
    assert not torch.isclose(loss, afm.distillation_loss(student, teacher, labels, temperature=3.0))


def test_it_is_least_where_the_student_is_the_teacher(rows):
    student, teacher, _ = rows
    assert afm.distillation_loss(teacher, teacher).abs() < 1e-12
    assert afm.distillation_loss(student, teacher) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_predictions_keep_their_loss_and_gradient(dtype):
    student = torch.tensor([200.0, -200.0], dtype=dtype, requires_grad=True)
    teacher, labels = torch.tensor([-200.0, 200.0], dtype=dtype), torch.tensor([0.0, 1.0], dtype=dtype)
    loss = afm.distillation_loss(student, teacher, labels)
    loss.backward()
    torch.testing.assert_close(
        loss, torch.tensor(200.0 + 400.0 - 200.0, dtype=dtype)
    )  # BCE 200; KL softplus(200) = 200
    torch.testing.assert_close(student.grad, torch.tensor([1.0, -1.0], dtype=dtype))


def test_half_precision_is_computed_in_float32(rows):
    student, teacher, labels = rows
    half = student.detach().bfloat16().requires_grad_()
    loss = afm.distillation_loss(half, teacher, labels.bool())
    loss.backward()
    expected = afm.distillation_loss(half.detach().double(), teacher, labels)
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_any_one_shape_will_do_and_two_are_refused(rows):
    student, teacher, labels = rows
    column = afm.distillation_loss(student[:, None], teacher[:, None], labels[:, None], label_preserving=1.0)
    torch.testing.assert_close(column, afm.distillation_loss(student, teacher, labels, label_preserving=1.0))
    with pytest.raises(ValueError, match=r"labels must have the shape of student_logits, \[50, 1\], got \[50\]"):
        afm.distillation_loss(student[:, None], teacher[:, None], labels)
    with pytest.raises(
        ValueError, match=r"teacher_logits must have the shape of student_logits, \[50\], got \[50, 1\]"
    ):
        afm.distillation_loss(student, [teacher, teacher[:, None]], labels)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be > 0, got nan"),
        ({"weight": -1.0}, "weight must be >= 0, got -1.0"),
        ({"label_preserving": -0.5}, "label_preserving must be >= 0, got -0.5"),
        ({"click_rate": 1.0}, r"click_rate must be in \(0, 1\), got 1.0"),
        ({"label_preserving": 1.0}, "must be given labels for label_preserving"),
    ],
)
def test_refusals(rows, options, sentence):
    student, teacher, _ = rows
    with pytest.raises(ValueError, match="distillation_loss " + sentence):
        afm.distillation_loss(student, teacher, **options)


def test_no_teacher_is_refused(rows):
    with pytest.raises(ValueError, match="must hold at least one tensor, got none"):
        afm.distillation_loss(rows[0], [])


def test_a_step_with_it_can_be_compiled(rows):
    student, teacher, labels = rows
    loss = torch.compile(afm.distillation_loss, fullgraph=True, backend="aot_eager")(student, teacher, labels)
    torch.testing.assert_close(loss, afm.distillation_loss(student, teacher, labels))
