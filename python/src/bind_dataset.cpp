#include "libafm/data/batch_stream.h"
#include "libafm/data/dataset.h"
#include "python/src/arguments.h"
#include "python/src/bind_options.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

void bind_batch(py::module_& m) {
  py::class_<Batch>(m, "Batch", "One batch of encoded rows.")
      .def(py::init(&batch_of), "ids"_a, "dense"_a = py::none(), "label"_a = py::none())
      .def_property_readonly(
          "ids", [](const Batch& self) { return defined(self.ids); }, "[B, S], int32 or int64.")
      .def_property_readonly(
          "dense", [](const Batch& self) { return defined(self.dense); }, "[B, Q] float32.")
      .def_property_readonly(
          "label", [](const Batch& self) { return defined(self.label); }, "[B] float32, or None.")
      .def(
          "to", [](const Batch& self, const py::object& device) { return self.to(device_of(device)); }, "device"_a)
      .def("__len__", &Batch::rows);
}

void bind_whole_dataset(py::module_& m) {
  py::class_<Dataset>(m, "Dataset", "The rows of one split of a dataset folder, memory-mapped and checked.")
      .def_static(
          "open",
          [](const std::filesystem::path& folder, const std::string& split) {
            const auto wanted = enum_of<Split>(split, "split");
            const py::gil_scoped_release unlocked;
            return Dataset::open(folder, wanted);
          },
          "folder"_a, "split"_a = "train", "split: train, valid or test.")
      .def_static(
          "from_tensors",
          [](const Schema& schema, const py::object& ids, const py::object& dense, const py::object& label) {
            const Batch rows = batch_of(ids, dense, label);
            const py::gil_scoped_release unlocked;
            return Dataset::from_tensors(schema, rows);
          },
          "schema"_a, "ids"_a, "dense"_a = py::none(), py::kw_only(), "label"_a,
          "From tensors or arrays in memory: ids [N, S], dense [N, Q], label [N].")
      .def_property_readonly("schema", &Dataset::schema)
      .def_property_readonly("device", [](const Dataset& self) { return self.device(); })
      .def("__len__", &Dataset::size)
      .def(
          "rows",
          [](const Dataset& self, const py::object& index) {
            const at::Tensor rows = tensor_of(index);
            const py::gil_scoped_release unlocked;
            return self.rows(rows);
          },
          "index"_a, "The rows of those numbers, int64 [B], in that order.")
      .def("range", &Dataset::range, "begin"_a, "end"_a, ReleaseGil())
      .def(
          "to",
          [](const Dataset& self, const py::object& device) {
            const at::Device target = device_of(device);
            const py::gil_scoped_release unlocked;
            return self.to(target);
          },
          "device"_a, "A copy that lives on `device` as a whole.")
      .def("click_rate", &Dataset::click_rate, ReleaseGil(), "Mean label.")
      .def("__repr__", [](const Dataset& self) {
        return fmt::format("<afm.Dataset rows={} fields={}>", self.size(), self.schema().fields.size());
      });
}

void bind_writer(py::module_& m) {
  py::class_<DatasetWriter>(m, "DatasetWriter",
                            "Writes one split of a dataset folder: append any number of times, then finish once.")
      .def(py::init([](const std::filesystem::path& folder, const Schema& schema, const std::string& split,
                       int64_t rows_per_shard) {
             return std::make_unique<DatasetWriter>(folder, schema, enum_of<Split>(split, "split"), rows_per_shard);
           }),
           "folder"_a, "schema"_a, "split"_a, py::kw_only(), "rows_per_shard"_a = int64_t{1} << 20)
      .def(
          "append",
          [](DatasetWriter& self, const py::object& ids, const py::object& dense, const py::object& label) {
            const Batch rows = batch_of(ids, dense, label);
            const py::gil_scoped_release unlocked;
            self.append(rows);
          },
          "ids"_a, "dense"_a = py::none(), py::kw_only(), "label"_a,
          "Copies rows: tensors or arrays ids [n, S], dense [n, Q], label [n].")
      .def("finish", &DatasetWriter::finish, ReleaseGil(), "Makes the split visible; returns its rows.");
}

// BatchStream as an iterable: each `for` goes on to the next epoch, or runs the one that start_epoch() chose.
struct EpochStream {
  EpochStream(const Dataset& dataset, const BatchOptions& options) : stream(dataset, options) {}

  void start_epoch(int64_t wanted, int64_t batch) {
    stream.start_epoch(wanted, batch);
    epoch = wanted;
    chosen = true;
  }
  void begin() {
    if (!chosen) stream.start_epoch(++epoch);
    chosen = false;
  }

  BatchStream stream;
  int64_t epoch = 0;
  bool chosen = true;
};

void bind_stream(py::module_& m) {
  bind_options<BatchOptions>(m, "BatchOptions", "How BatchStream cuts a dataset into batches.");
  py::class_<EpochStream>(m, "BatchStream",
                          "The rows of a dataset in batches, shuffled by index: iterate over it once per epoch.\n\n"
                          "The order is a function of (seed, epoch) alone.")
      .def(py::init([](const Dataset& dataset, const py::kwargs& options) {
             return std::make_unique<EpochStream>(dataset, options_of<BatchOptions>(options, "BatchOptions"));
           }),
           py::keep_alive<1, 2>(), "dataset"_a, "Keywords: the fields of BatchOptions.")
      .def("start_epoch", &EpochStream::start_epoch, "epoch"_a, "batch"_a = 0,
           "The next `for` runs this epoch, from this batch on.")
      .def_property_readonly(
          "position", [](const EpochStream& self) { return self.stream.position(); },
          "Batches already taken in this epoch.")
      .def_readonly("epoch", &EpochStream::epoch)
      .def(
          "__len__", [](const EpochStream& self) { return self.stream.batches(); }, "Batches of an epoch.")
      .def("__iter__",
           [](const py::object& self) {
             self.cast<EpochStream&>().begin();
             return self;
           })
      .def("__next__", [](EpochStream& self) {
        std::optional<Batch> batch;
        {
          const py::gil_scoped_release unlocked;
          batch = self.stream.next();
        }
        if (!batch) throw py::stop_iteration();
        return *batch;
      });
}

}  // namespace

void bind_dataset(py::module_& m) {
  bind_batch(m);
  bind_whole_dataset(m);
  bind_writer(m);
  bind_stream(m);
}

}  // namespace afm::python
