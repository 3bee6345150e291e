"""The loss of training on in a loop of your own: labels, and what the model said before compression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import softplus


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | None = None,
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
    label_preserving: float = 0.0,
    click_rate: float | None = None,
) -> torch.Tensor:
    """Logloss on the labels, plus a divergence from the teacher.

    With s the student's and t the teacher's logits and T the temperature, the mean over rows of

        BCE(s, label) + (weight + label_preserving r) T^2 KL(sigmoid(t / T) || sigmoid(s / T)),

    where r is 1 if the teacher's probability is on the label's side of the click rate, and else 0: decisions that were
    right are kept first (arXiv 2012.01604). The gradient of the KL term in s is T (sigmoid(s / T) - sigmoid(t / T)).
    Everything comes from logits, so that certain predictions neither overflow nor lose their gradient. Models that
    return a probability p have the logits torch.logit(p, eps=1e-7).

    Args:
        student_logits: any shape, such as [B] or [B, 1].
        teacher_logits: the same shape; or several, an ensemble, which is the mean of their logits. No gradient.
        labels: 0 or 1, the same shape; None leaves the BCE out, for traffic without labels.
        temperature: T > 0; above 1, small probabilities count for more.
        weight: of the KL term, >= 0.
        label_preserving: added to the weight on the rows where the teacher is right, >= 0; needs labels.
        click_rate: the side, in (0, 1); by default the mean of these labels.

    Returns:
        A scalar, in float32 for logits in half precision.

    Raises:
        ValueError: for shapes that differ, or an option out of its range.

    Example:
        with torch.no_grad():
            wanted = teacher(batch)
        loss = afm.distillation_loss(small(batch), wanted, labels, temperature=2.0)
    """
    _check_options(temperature, weight, label_preserving, click_rate)
    student = _precise(student_logits)
    teacher = _mean_of(teacher_logits, student)
    divergence = _divergence(student, teacher, temperature)
    if labels is None:
        if label_preserving > 0:
            raise ValueError("distillation_loss must be given labels for label_preserving")
        return weight * divergence.mean()
    _check_shape("labels", labels, student)
    labels = labels.to(student.dtype)
    weights = weight
    if label_preserving > 0:
        rate = labels.mean() if click_rate is None else click_rate
        right = (teacher.sigmoid() > rate) == (labels > rate)
        weights = weight + label_preserving * right.to(student.dtype)
    return (_softplus(student) - labels * student + weights * divergence).mean()


def _softplus(x: torch.Tensor) -> torch.Tensor:
    return softplus(x, threshold=40)  # linear only where float64 cannot tell; the default of 20 is for float32


def _divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of each row, without a logarithm of a probability."""
    s, t = student / temperature, teacher / temperature
    return (_softplus(s) - _softplus(t) - t.sigmoid() * (s - t)) * temperature**2


def _precise(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _mean_of(logits: torch.Tensor | Sequence[torch.Tensor], student: torch.Tensor) -> torch.Tensor:
    teachers = [logits] if isinstance(logits, torch.Tensor) else list(logits)
    if not teachers:
        raise ValueError("distillation_loss teacher_logits must hold at least one tensor, got none")
    for each in teachers:
        _check_shape("teacher_logits", each, student)
    return torch.stack([each.detach().to(student.dtype) for each in teachers]).mean(0)


def _check_shape(name: str, given: torch.Tensor, student: torch.Tensor) -> None:
    if given.shape != student.shape:
        raise ValueError(
            f"distillation_loss {name} must have the shape of student_logits, {list(student.shape)}, "
            f"got {list(given.shape)}"
        )


def _check_options(temperature: float, weight: float, label_preserving: float, click_rate: float | None) -> None:
    if not temperature > 0:
        raise ValueError(f"distillation_loss temperature must be > 0, got {temperature}")
    for name, value in {"weight": weight, "label_preserving": label_preserving}.items():
        if not value >= 0:
            raise ValueError(f"distillation_loss {name} must be >= 0, got {value}")
    if click_rate is not None and not 0 < click_rate < 1:
        raise ValueError(f"distillation_loss click_rate must be in (0, 1), got {click_rate}")
