#include "worker/comm/slot_exchange.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/exchange_routing.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

constexpr int64_t kWordBytes = 4;  // of a value, an id, a weight

// m: a row has at most k experts on a rank, and at most as many as the rank has.
int64_t PlacesOf(const ExpertExchangeOptions& options, int num_ranks) {
  std::vector<int64_t> experts(static_cast<size_t>(num_ranks));
  for (const int owner : options.expert_owner) {
    ++experts[static_cast<size_t>(owner)];
  }
  return std::min(options.experts_per_token,
                  *std::max_element(experts.begin(), experts.end()));
}

int64_t ValueWords(const ExpertExchangeOptions& options) {
  return (DispatchRowBytes(options, kWordBytes) + kWordBytes - 1) / kWordBytes;
}

// Rows begin at multiples of 16 bytes.
int64_t RowWords(const ExpertExchangeOptions& options) {
  const int64_t k = options.experts_per_token;
  return (ValueWords(options) + k + (options.weights_travel ? k : 0) + 3) / 4 * 4;
}

}  // namespace

SlotExchange::SlotExchange(const ExpertExchangeOptions& options, int64_t max_rows,
                           kernels::KernelBackend* backend, DeviceCommunicator* ep)
    : options_(options),
      max_rows_(max_rows),
      backend_(backend),
      ep_(ep),
      num_ranks_(ep->size()),
      places_(PlacesOf(options, ep->size())),
      row_bytes_(DispatchRowBytes(options, kWordBytes)),
      value_words_(ValueWords(options)),
      row_words_(RowWords(options)),
      rows_(max_rows),
      gather_bytes_(static_cast<size_t>(ep->size())) {
  transfers_.reserve(2 * gather_bytes_.size());
}

absl::StatusOr<std::unique_ptr<SlotExchange>> SlotExchange::Create(
    const ExpertExchangeOptions& options, int64_t max_rows,
    kernels::KernelBackend* backend, DeviceCommunicator* ep) {
  TESSERA_CHECK(backend->activation_dtype() == DType::kF32);
  TESSERA_CHECK(max_rows >= 1 && max_rows <= options.max_tokens);
  std::unique_ptr<SlotExchange> exchange(
      new SlotExchange(options, max_rows, backend, ep));
  TESSERA_RETURN_IF_ERROR(exchange->Allocate());
  return exchange;
}

absl::Status SlotExchange::Allocate() {
  const int64_t k = options_.experts_per_token;
  const int64_t d = options_.hidden_size;
  const int64_t all_rows = num_ranks_ * max_rows_;
  const auto allocate = [&](int64_t words) {
    return backend_->Allocate(static_cast<size_t>(words * kWordBytes));
  };
  TESSERA_ASSIGN_OR_RETURN(
      lists_, ExpertLists::Create(options_, ep_->rank(), all_rows, backend_));
  TESSERA_ASSIGN_OR_RETURN(gathered_, allocate(all_rows * row_words_));
  if (options_.rows == DispatchRows::kFp8) {
    TESSERA_ASSIGN_OR_RETURN(packer_, RowPacker::Create(d, max_rows_, backend_));
  }
  TESSERA_ASSIGN_OR_RETURN(ones_, AllocateOnes(options_, backend_));
  // A row of different experts has m items at most; but no list may name rows that are
  // not there, whatever the ids are.
  TESSERA_ASSIGN_OR_RETURN(outputs_, allocate(all_rows * k * d));
  TESSERA_ASSIGN_OR_RETURN(packed_, allocate(all_rows * places_));
  TESSERA_ASSIGN_OR_RETURN(sent_, allocate(all_rows * places_ * d));
  TESSERA_ASSIGN_OR_RETURN(returned_, allocate(all_rows * places_ * d));
  TESSERA_ASSIGN_OR_RETURN(return_of_slot_, allocate(max_rows_ * k));
  const std::vector<int32_t> none(static_cast<size_t>(max_rows_ * k), -1);
  TESSERA_ASSIGN_OR_RETURN(no_experts_, MakeDeviceInts(backend_, none));
  const std::vector<int32_t> owners(options_.expert_owner.begin(),
                                    options_.expert_owner.end());
  TESSERA_ASSIGN_OR_RETURN(owner_of_expert_, MakeDeviceInts(backend_, owners));
  return absl::OkStatus();
}

void SlotExchange::SetRows(int64_t rows) {
  TESSERA_CHECK(rows >= 1 && rows <= max_rows_);
  rows_ = rows;
}

TensorView SlotExchange::Gathered(DType dtype, int64_t begin, int64_t cols) const {
  return TensorView(gathered_.data(), dtype, {num_ranks_ * rows_, row_words_})
      .Slice(1, begin, cols);
}

TensorView SlotExchange::GatheredRows() const {
  return options_.rows == DispatchRows::kFp8
             ? TensorView(gathered_.data(), DType::kU8,
                          {num_ranks_ * rows_, row_words_ * kWordBytes})
                   .Slice(1, 0, row_bytes_)
             : Gathered(DType::kF32, 0, options_.hidden_size);
}

void SlotExchange::PlaceOwnRows(kernels::Stream& stream, TensorView x,
                                TensorView expert_ids, TensorView weights) {
  const int64_t k = options_.experts_per_token;
  const int64_t tokens = x.dim(0);
  const int64_t begin = ep_->rank() * rows_;
  const auto own = [&](TensorView gathered, int64_t first, int64_t count) {
    return gathered.Rows(begin + first, count);
  };
  const TensorView rows = own(GatheredRows(), 0, tokens);
  if (options_.rows == DispatchRows::kFp8) {
    packer_.Pack(stream, x, rows);
  } else {
    backend_->Copy(stream, x, rows);
  }
  const TensorView ids = Gathered(DType::kI32, value_words_, k);
  backend_->Copy(stream, expert_ids, own(ids, 0, tokens));
  // Rows that are not there go nowhere; what they hold is of no meaning.
  const TensorView none(no_experts_.data(), DType::kI32, {rows_ - tokens, k});
  backend_->Copy(stream, none, own(ids, tokens, rows_ - tokens));
  if (options_.weights_travel) {
    backend_->Copy(stream, weights,
                   own(Gathered(DType::kF32, value_words_ + k, k), 0, tokens));
  }
}

TensorView SlotExchange::Places(const kernels::DeviceBuffer& buffer) const {
  return {
      buffer.data(), DType::kF32, {num_ranks_ * rows_ * places_, options_.hidden_size}};
}

TensorView SlotExchange::PlacesOfRank(const kernels::DeviceBuffer& buffer,
                                      int rank) const {
  return Places(buffer).Rows(rank * rows_ * places_, rows_ * places_);
}

absl::Status SlotExchange::Place(kernels::Stream& stream, TensorView x,
                                 TensorView expert_ids, TensorView weights) {
  TESSERA_RETURN_IF_ERROR(CheckShapes(options_, x, expert_ids, weights));
  if (x.dim(0) > rows_) {
    return InternalF("dispatch of {} tokens in slots for {}", x.dim(0), rows_);
  }
  PlaceOwnRows(stream, x, expert_ids, weights);
  return absl::OkStatus();
}

absl::Status SlotExchange::Gather(kernels::Stream& wire) {
  const int64_t part = rows_ * row_words_ * kWordBytes;
  std::fill(gather_bytes_.begin(), gather_bytes_.end(), part);
  auto* const all = static_cast<std::byte*>(gathered_.data());
  return ep_->AllGather({.backend = backend_, .stream = &wire},
                        {all + ep_->rank() * part, static_cast<size_t>(part)},
                        gather_bytes_, {all, static_cast<size_t>(num_ranks_ * part)});
}

ExpertBatch SlotExchange::List(kernels::Stream& stream) {
  const int64_t d = options_.hidden_size;
  const int64_t k = options_.experts_per_token;
  const TensorView ids = Gathered(DType::kI32, value_words_, k);
  lists_.List(stream, ids,
              options_.weights_travel ? Gathered(DType::kF32, value_words_ + k, k)
                                      : TensorView());
  backend_->LocateReturns(
      stream, {.expert_ids = ids.Rows(ep_->rank() * rows_, rows_),
               .owner_of_expert = {owner_of_expert_.data(),
                                   DType::kI32,
                                   {std::ssize(options_.expert_owner)}},
               .places = places_,
               .row_of_slot = {return_of_slot_.data(), DType::kI32, {rows_, k}},
               .fault = lists_.fault()});
  return {.rows = GatheredRows(),
          .row_of_item = lists_.row_of_item(),
          .item_offsets = lists_.item_offsets(),
          .item_weights = lists_.item_weights(),
          .out = {outputs_.data(), DType::kF32, {num_ranks_ * rows_ * k, d}}};
}

void SlotExchange::Pack(kernels::Stream& stream) {
  const int64_t all_rows = num_ranks_ * rows_;
  const TensorView packed(packed_.data(), DType::kI32, {all_rows, places_});
  backend_->PackSlots(stream, lists_.row_of_slot(), packed);
  const TensorView outputs(outputs_.data(), DType::kF32,
                           {all_rows * options_.experts_per_token, options_.hidden_size});
  backend_->GatherRows(stream, outputs, packed.Reshape({all_rows * places_}),
                       Places(sent_));
  backend_->Copy(stream, PlacesOfRank(sent_, ep_->rank()),
                 PlacesOfRank(returned_, ep_->rank()));
}

absl::Status SlotExchange::Return(kernels::Stream& wire) {
  const auto bytes =
      static_cast<size_t>(rows_ * places_ * options_.hidden_size * kWordBytes);
  transfers_.clear();
  for (int peer = 0; peer < num_ranks_; ++peer) {
    if (peer == ep_->rank()) {
      continue;
    }
    transfers_.push_back({true, PlacesOfRank(sent_, peer).data, bytes, peer});
    transfers_.push_back({false, PlacesOfRank(returned_, peer).data, bytes, peer});
  }
  return ep_->Exchange(wire, transfers_);
}

void SlotExchange::Sum(kernels::Stream& stream, TensorView weights, TensorView out) {
  const int64_t k = options_.experts_per_token;
  const TensorView row_of_slot(return_of_slot_.data(), DType::kI32, {out.dim(0), k});
  const TensorView ones(ones_.data(), DType::kF32, {out.dim(0), k});
  backend_->CombineExperts(stream, Places(returned_), row_of_slot,
                           options_.weights_travel ? ones : weights, out);
}

absl::StatusOr<ExpertBatch> SlotExchange::Dispatch(kernels::Stream& stream, TensorView x,
                                                   TensorView expert_ids,
                                                   TensorView weights) {
  TESSERA_RETURN_IF_ERROR(Place(stream, x, expert_ids, weights));
  TESSERA_RETURN_IF_ERROR(Gather(stream));
  weights_ = weights;
  return List(stream);
}

absl::Status SlotExchange::Combine(kernels::Stream& stream, TensorView out) {
  Pack(stream);
  TESSERA_RETURN_IF_ERROR(Return(stream));
  Sum(stream, weights_, out);
  return absl::OkStatus();
}

}  // namespace tessera::worker
