#include "worker/runner/trace_recorder.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"

#include "common/check.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

using kernels::TensorView;
using model::DType;

namespace {

template <typename T>
void AppendElements(TensorView view, std::vector<std::byte>& out) {
  TESSERA_CHECK(view.is_contiguous());
  const T* const begin = view.as<T>();
  const auto count = static_cast<size_t>(view.num_elements());
  if constexpr (std::is_same_v<T, double>) {
    for (size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(begin[i]);
      const auto* bytes = reinterpret_cast<const std::byte*>(&value);
      out.insert(out.end(), bytes, bytes + sizeof(value));
    }
  } else {
    const auto* bytes = reinterpret_cast<const std::byte*>(begin);
    out.insert(out.end(), bytes, bytes + count * sizeof(T));
  }
}

// "router.ids" of layer 3 -> "router.3.ids"; "select" of layer 3 -> "select.3".
std::string NameOf(std::string_view what, int64_t layer) {
  if (layer < 0) {
    return std::string(what);
  }
  const size_t dot = what.find('.');
  return dot == std::string_view::npos
             ? fmt::format("{}.{}", what, layer)
             : fmt::format("{}.{}{}", what.substr(0, dot), layer, what.substr(dot));
}

void AppendRows(const RecordedTensor& rows, RecordedTensor& to) {
  if (to.shape.empty()) {
    to = rows;
    return;
  }
  TESSERA_CHECK(to.dtype == rows.dtype && to.shape.size() == rows.shape.size());
  to.shape[0] += rows.shape[0];
  to.data.insert(to.data.end(), rows.data.begin(), rows.data.end());
}

}  // namespace

std::vector<double> RecordedTensor::Values() const {
  std::vector<double> out;
  const auto read = [&]<typename T>(T value) {
    for (size_t at = 0; at < data.size(); at += sizeof(T)) {
      std::memcpy(&value, data.data() + at, sizeof(T));
      out.push_back(static_cast<double>(value));
    }
  };
  switch (dtype) {
    case DType::kF32:
      read(float{});
      break;
    case DType::kI32:
      read(int32_t{});
      break;
    default:
      TESSERA_CHECK(dtype == DType::kI64);
      read(int64_t{});
  }
  return out;
}

RecordedTensor CopyTensor(TensorView view) {
  RecordedTensor out;
  for (int i = 0; i < view.rank; ++i) {
    out.shape.push_back(view.dim(i));
  }
  out.dtype = view.dtype == DType::kF64 ? DType::kF32 : view.dtype;
  switch (view.dtype) {
    case DType::kF32:
      AppendElements<float>(view, out.data);
      break;
    case DType::kF64:
      AppendElements<double>(view, out.data);
      break;
    case DType::kI32:
      AppendElements<int32_t>(view, out.data);
      break;
    default:
      AppendElements<int64_t>(view, out.data);
  }
  return out;
}

RecordedTensor LastRow(const RecordedTensor& tensor) {
  TESSERA_CHECK(!tensor.shape.empty() && tensor.shape[0] > 0);
  RecordedTensor out;
  out.dtype = tensor.dtype;
  out.shape.assign(tensor.shape.begin() + 1, tensor.shape.end());
  const size_t bytes = tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
  out.data.assign(tensor.data.end() - static_cast<std::ptrdiff_t>(bytes),
                  tensor.data.end());
  return out;
}

bool TraceRecorder::Wanted(std::string_view what) const {
  const std::string_view group = what.substr(0, what.find('.'));
  return (group == "router" && selection_.router) ||
         ((group == "select" || group == "candidate_blocks") && selection_.select) ||
         (group == "engram" && selection_.engram) || (group == "mtp" && selection_.mtp) ||
         (group == "hidden" && selection_.hidden) ||
         (group == "all_logits" && selection_.logits);
}

void TraceRecorder::Record(std::string_view what, int64_t layer, TensorView rows) {
  if (!Wanted(what) || rows.dim(0) == 0) {
    return;
  }
  const RecordedTensor copy = CopyTensor(rows);
  AppendRows(copy, what == "hidden" ? hidden_[layer] : tensors_[NameOf(what, layer)]);
}

void TraceRecorder::Put(const std::string& name, RecordedTensor tensor) {
  tensors_[name] = std::move(tensor);
}

std::map<std::string, RecordedTensor> TraceRecorder::Finish(bool keep_all) {
  if (!hidden_.empty()) {
    RecordedTensor last;
    RecordedTensor all;
    const auto layers = static_cast<int64_t>(hidden_.size());
    for (const auto& [layer, streams] : hidden_) {
      const RecordedTensor row = LastRow(streams);
      last.data.insert(last.data.end(), row.data.begin(), row.data.end());
      all.data.insert(all.data.end(), streams.data.begin(), streams.data.end());
      last.shape = row.shape;
      all.shape = streams.shape;
    }
    last.shape.insert(last.shape.begin(), layers);
    all.shape.insert(all.shape.begin(), layers);
    tensors_["last_hidden"] = std::move(last);
    if (keep_all) {
      tensors_["hidden"] = std::move(all);
    }
  }
  for (const char* name : {"all_logits", "mtp.all_logits"}) {
    const auto it = tensors_.find(name);
    if (it != tensors_.end()) {
      std::string last_name = name;
      last_name.replace(last_name.find("all"), 3, "last");
      tensors_[last_name] = LastRow(it->second);
      if (!keep_all) {
        tensors_.erase(name);
      }
    }
  }
  return std::move(tensors_);
}

}  // namespace tessera::worker
