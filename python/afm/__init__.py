"""libafm: trains click-through-rate models and makes them many times smaller.

import afm

train_set, valid_set = afm.Dataset.open("clicks"), afm.Dataset.open("clicks", "valid")
base = afm.DeepFM(train_set.schema, embedding_dim=10)
afm.train(base, train_set, valid_set, epochs=10)

statistics = afm.collect_statistics(base, dataset=train_set)
plan = afm.plan_ranks(statistics, ratio=8)
small = afm.factorize(base, statistics, plan)
afm.train(small, train_set, valid_set, epochs=5, teacher=base)

print(afm.compare(base, small, valid_set).to_markdown())
afm.save_model(small, "clicks.safetensors")

Any other PyTorch model: small, report = afm.compress(model, batches, ratio=4).
"""

from afm import _torch_check as _torch_check  # before anything that loads the extension
from afm._core import (
    Batch,
    BatchOptions,
    BatchStream,
    Comparison,
    Dataset,
    DatasetWriter,
    DCNOptions,
    DeepFMOptions,
    Encoder,
    EncoderBuilder,
    EpochRecord,
    Factors,
    FieldSpec,
    GroupSize,
    History,
    LayerStatistics,
    LayerSummary,
    Metrics,
    ModelReport,
    Moments,
    OptionField,
    Progress,
    SafetensorsFile,
    Schema,
    Spectrum,
    Statistics,
    TableFactors,
    TrainOptions,
    WideDeepOptions,
    __version__,
    auc,
    logloss,
    logloss_of,
    mimic_output,
    mimic_table,
    model_names,
    read_schema,
    read_tensors,
    schema_from_json,
    schema_to_json,
    spectrum_of,
    spectrum_values,
    truncate_weight,
    write_schema,
)
from afm.compression import (
    Folded,
    collect_statistics,
    compare,
    factorize,
    fold,
    fold_batch_norm,
    plan_ranks,
    planned_parameters,
    planned_size,
    predicted_logloss,
    refit,
    report_on,
    summarize,
)
from afm.distillation import distillation_loss
from afm.errors import DataError, Error, FormatError, IoError
from afm.exporting import export_onnx, export_torchscript
from afm.factorized import (
    FactorizedConv1d,
    FactorizedEmbedding,
    FactorizedEmbeddingBag,
    FactorizedLinear,
    SharedBasisEmbedding,
)
from afm.files import inspect, save_tensors
from afm.foreign import compress
from afm.foreign_optimizer import check_optimizer, parameter_groups
from afm.foreign_report import CompressionReport, LayerReport
from afm.foreign_save import load_compressed, save_compressed
from afm.models import (
    DCN,
    DeepFM,
    Model,
    WideDeep,
    byte_count,
    load_model,
    make_model,
    options_class,
    parameter_count,
    save_model,
    size_by_group,
)
from afm.paths import get_cmake_prefix_path, get_include
from afm.plan import LayerPlan, RankPlan, Tier, read_plan, write_plan
from afm.serving import Candidates, Scorer, pack
from afm.training import evaluate, fit_many, predict, train

__all__ = [
    "DCN",
    "Batch",
    "BatchOptions",
    "BatchStream",
    "Candidates",
    "Comparison",
    "CompressionReport",
    "DCNOptions",
    "DataError",
    "Dataset",
    "DatasetWriter",
    "DeepFM",
    "DeepFMOptions",
    "Encoder",
    "EncoderBuilder",
    "EpochRecord",
    "Error",
    "FactorizedConv1d",
    "FactorizedEmbedding",
    "FactorizedEmbeddingBag",
    "FactorizedLinear",
    "Factors",
    "FieldSpec",
    "Folded",
    "FormatError",
    "GroupSize",
    "History",
    "IoError",
    "LayerPlan",
    "LayerReport",
    "LayerStatistics",
    "LayerSummary",
    "Metrics",
    "Model",
    "ModelReport",
    "Moments",
    "OptionField",
    "Progress",
    "RankPlan",
    "SafetensorsFile",
    "Schema",
    "Scorer",
    "SharedBasisEmbedding",
    "Spectrum",
    "Statistics",
    "TableFactors",
    "Tier",
    "TrainOptions",
    "WideDeep",
    "WideDeepOptions",
    "__version__",
    "auc",
    "byte_count",
    "check_optimizer",
    "collect_statistics",
    "compare",
    "compress",
    "distillation_loss",
    "evaluate",
    "export_onnx",
    "export_torchscript",
    "factorize",
    "fit_many",
    "fold",
    "fold_batch_norm",
    "get_cmake_prefix_path",
    "get_include",
    "inspect",
    "load_compressed",
    "load_model",
    "logloss",
    "logloss_of",
    "make_model",
    "mimic_output",
    "mimic_table",
    "model_names",
    "options_class",
    "pack",
    "parameter_count",
    "parameter_groups",
    "plan_ranks",
    "planned_parameters",
    "planned_size",
    "predict",
    "predicted_logloss",
    "read_plan",
    "read_schema",
    "read_tensors",
    "refit",
    "report_on",
    "save_compressed",
    "save_model",
    "save_tensors",
    "schema_from_json",
    "schema_to_json",
    "size_by_group",
    "spectrum_of",
    "spectrum_values",
    "summarize",
    "train",
    "truncate_weight",
    "write_plan",
    "write_schema",
]
