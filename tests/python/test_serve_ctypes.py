"""The scorer from Python by its C interface alone: ctypes, no binding."""

import ctypes
from pathlib import Path

import afm
import numpy as np
import pytest
import torch
from afm import _core

LIBRARY = Path(_core.__file__).resolve().parents[2] / "libafm" / "serve" / "libafm_serve.so"


@pytest.mark.skipif(not LIBRARY.exists(), reason="libafm_serve.so lies in a build folder alone")
def test_the_c_interface_scores_as_the_model_does(tmp_path):
    serve = ctypes.CDLL(LIBRARY)
    serve.afm_serve_open.restype = ctypes.c_void_p
    serve.afm_serve_last_error.restype = ctypes.c_char_p
    fields = [afm.FieldSpec(name="user", cardinality=9), afm.FieldSpec(name="price", kind="numeric")]
    model = afm.DeepFM(afm.Schema(fields), embedding_dim=4, hidden=[8], init_std=0.5).eval()
    afm.save_model(model, tmp_path / "model")
    ids = np.arange(9, dtype=np.int32).reshape(9, 1)
    dense = np.linspace(-2, 2, 9, dtype=np.float32).reshape(9, 1)
    logits = np.empty(9, dtype=np.float32)
    scorer = ctypes.c_void_p(serve.afm_serve_open(str(tmp_path / "model").encode()))
    arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (ids, dense, logits)]
    assert serve.afm_serve_score(scorer, arrays[0], arrays[1], ctypes.c_int64(9), arrays[2]) == 0
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), torch.from_numpy(dense)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(logits) > 1e-3
    ids[3] = 9
    assert serve.afm_serve_score(scorer, arrays[0], arrays[1], ctypes.c_int64(9), arrays[2]) == -1
    assert serve.afm_serve_last_error() == b"field 'user' has id 9, its ids are 0 to 8"
    serve.afm_serve_close(scorer)
