// TraceRecorder: collects a forward pass's intermediates under the names of the golden
// files (without their "promptN." prefix). Chunks of a prompt are appended row by row, so
// a trace does not depend on how the prompt was cut into steps.
#ifndef TESSERA_WORKER_RUNNER_TRACE_RECORDER_H_
#define TESSERA_WORKER_RUNNER_TRACE_RECORDER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

// A tensor that owns its bytes. Floats are float32 whatever the backend computed in.
struct RecordedTensor {
  model::DType dtype = model::DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;

  // Elements as double; for comparisons.
  std::vector<double> Values() const;
};

// What to keep, as `trace --dump` names it.
struct TraceSelection {
  bool logits = true;  // last_logits, all_logits
  bool hidden = true;  // hidden, last_hidden
  bool router = true;  // router.I.ids, router.I.weights
  bool select = true;  // select.I, candidate_blocks
  bool engram = true;  // engram.I.rows, .gate, .memory
  bool mtp = true;     // mtp.last_logits, .all_logits, .second_logits; dspark.*
};

// External synchronisation.
class TraceRecorder final : public TraceSink {
 public:
  explicit TraceRecorder(const TraceSelection& selection) : selection_(selection) {}

  void Record(std::string_view what, int64_t layer, kernels::TensorView rows) override;

  // A whole tensor under its final name.
  void Put(const std::string& name, RecordedTensor tensor);

  // Stacks the layers' streams and picks the last position of what has a "last" form.
  // Call once, after the last step. `keep_all`: also the per-position forms of logits and
  // streams.
  std::map<std::string, RecordedTensor> Finish(bool keep_all);

 private:
  bool Wanted(std::string_view what) const;

  const TraceSelection selection_;
  std::map<std::string, RecordedTensor> tensors_;
  std::map<int64_t, RecordedTensor> hidden_;  // [N, M, d] by layer
};

// The last row of dimension 0, that dimension dropped.
RecordedTensor LastRow(const RecordedTensor& tensor);

// Contiguous float32 (or integer) copy of a view.
RecordedTensor CopyTensor(kernels::TensorView view);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_TRACE_RECORDER_H_
