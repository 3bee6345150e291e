"""What `afm compress` refuses of its budget and of a statistics file, before it computes."""

from home import TINY, Home


def test_what_smaller_cannot_do_is_said_before_it_is_tried(own: Home):
    assert "--smaller must be below the " in own.complaint(
        "compress base.safetensors clicks --smaller 1e9 --out s.safetensors"
    )
    own.run("compress base.safetensors clicks --ratio 1.3 --epochs 0 --out s.safetensors --statistics st.safetensors")
    line = "compress base.safetensors clicks --smaller 2 --out t.safetensors --statistics st.safetensors"
    assert "st.safetensors holds statistics without the metric of the loss" in own.complaint(line)


def test_statistics_of_other_weights_are_refused(own: Home):
    own.run("compress base.safetensors clicks --ratio 1.3 --epochs 0 --out s.safetensors --statistics st.safetensors")
    own.run("compress base.safetensors clicks --ratio 1.4 --epochs 0 --out s.safetensors --statistics st.safetensors")
    own.run(f"train clicks {' '.join(TINY)} --set epochs=3 --out longer.safetensors")  # one epoch more
    line = "compress longer.safetensors clicks --ratio 1.3 --epochs 0 --out t.safetensors --statistics st.safetensors"
    assert "st.safetensors holds statistics of another model: mlp." in own.complaint(line)
