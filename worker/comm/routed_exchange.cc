#include "worker/comm/routed_exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "worker/comm/exchange_routing.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

int64_t ElementBytes(DType dtype) {
  return static_cast<int64_t>(model::DTypeBits(dtype) / 8);
}

int64_t ItemsOf(const ExpertExchangeOptions& options) {
  return options.max_tokens * options.experts_per_token;
}

// owner[e] by `map` of the rank that has expert e.
template <typename Map>
std::vector<int> Owners(const ExpertExchangeOptions& options, Map map) {
  std::vector<int> owners;
  owners.reserve(options.expert_owner.size());
  for (const int rank : options.expert_owner) {
    owners.push_back(map(rank));
  }
  return owners;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RoutedExchange>> RoutedExchange::Create(
    const ExpertExchangeOptions& options, int64_t max_rounds,
    kernels::KernelBackend* backend, const ExchangeGroups& groups) {
  const int64_t num_ranks = groups.ep->size();
  const auto allocate = [&](int64_t rows) {
    return backend->Allocate(model::DTypeBytes(
        backend->activation_dtype(), static_cast<size_t>(rows * options.hidden_size)));
  };
  const auto allocate_rows = [&](int64_t rows) {
    return backend->Allocate(static_cast<size_t>(
        rows * DispatchRowBytes(options, ElementBytes(backend->activation_dtype()))));
  };
  Memory memory;
  TESSERA_ASSIGN_OR_RETURN(memory.rows, allocate_rows(options.max_tokens * num_ranks));
  TESSERA_ASSIGN_OR_RETURN(memory.outputs, allocate(ItemsOf(options) * num_ranks));
  TESSERA_ASSIGN_OR_RETURN(memory.returned, allocate(ItemsOf(options)));
  if (options.rows == DispatchRows::kFp8) {
    TESSERA_ASSIGN_OR_RETURN(memory.packed, allocate_rows(options.max_tokens));
    TESSERA_ASSIGN_OR_RETURN(
        memory.packer,
        RowPacker::Create(options.hidden_size, options.max_tokens, backend));
  }
  TESSERA_ASSIGN_OR_RETURN(ExchangeLists lists,
                           AllocateLists(options, ItemsOf(options) * num_ranks, backend));
  return std::unique_ptr<RoutedExchange>(new RoutedExchange(
      options, max_rounds, backend, groups, std::move(lists), std::move(memory)));
}

RoutedExchange::RoutedExchange(const ExpertExchangeOptions& options, int64_t max_rounds,
                               kernels::KernelBackend* backend,
                               const ExchangeGroups& groups, ExchangeLists lists,
                               Memory memory)
    : options_(options),
      backend_(backend),
      dtype_(backend->activation_dtype()),
      row_bytes_(DispatchRowBytes(options, ElementBytes(dtype_))),
      output_bytes_(options.hidden_size * ElementBytes(dtype_)),
      weight_bytes_(options.weights_travel ? ElementBytes(dtype_) : 0),
      lists_(std::move(lists)),
      items_(options_.expert_owner, groups.ep->rank(),
             ItemsOf(options) * groups.ep->size(), TravellingWeights(options_, dtype_),
             std::move(lists_.items)),
      items_of_token_(static_cast<size_t>(options.max_tokens),
                      static_cast<int32_t>(options.experts_per_token)),
      place_of_arrival_(static_cast<size_t>(ItemsOf(options) * groups.ep->size())),
      memory_(std::move(memory)) {
  ExchangeShape shape;
  shape.placement_digest = PlacementDigest(
      options.expert_owner, options.hidden_size, options.experts_per_token,
      ElementBytes(dtype_), weight_bytes_, row_bytes_);
  shape.max_rows = options.max_tokens;
  shape.max_rounds = max_rounds;
  shape.experts_per_token = options.experts_per_token;
  shape.row_bytes = row_bytes_;
  shape.output_bytes = output_bytes_;
  shape.weight_bytes = weight_bytes_;
  levels_.reserve(2);  // a level's owners stay where they are
  if (groups.node == nullptr) {
    AddLevel(shape, options.expert_owner, groups.ep);
    return;
  }
  const int per_node = groups.node->size();
  AddLevel(shape, Owners(options, [&](int rank) { return rank / per_node; }),
           groups.rail);
  shape.max_rows = options.max_tokens * groups.rail->size();
  const int own_node = groups.rail->rank();
  AddLevel(shape,
           Owners(options,
                  [&](int rank) {
                    return rank / per_node == own_node ? rank % per_node : -1;
                  }),
           groups.node);
}

void RoutedExchange::AddLevel(const ExchangeShape& shape, std::vector<int> expert_owner,
                              Communicator* comm) {
  Level& level = levels_.emplace_back();
  level.expert_owner = std::move(expert_owner);
  ExchangeShape own_shape = shape;
  own_shape.expert_owner = level.expert_owner;
  level.rows = std::make_unique<RowExchange>(own_shape, comm);
  const auto items = static_cast<size_t>(level.rows->max_items());
  if (levels_.size() == 1) {
    level.return_rows = {static_cast<int32_t*>(lists_.row_of_slot.data()), items};
    level.returned = static_cast<std::byte*>(memory_.returned.data());
    return;
  }
  level.own_return_rows.resize(items);
  level.return_rows = level.own_return_rows;
  level.own_returned = std::make_unique_for_overwrite<std::byte[]>(
      items * static_cast<size_t>(output_bytes_));
  level.returned = level.own_returned.get();
}

TensorView RoutedExchange::RowsIn(kernels::DeviceBuffer& memory, int64_t rows) const {
  return options_.rows == DispatchRows::kFp8
             ? TensorView(memory.data(), DType::kU8, {rows, row_bytes_})
             : TensorView(memory.data(), dtype_, {rows, options_.hidden_size});
}

void RoutedExchange::Pack(kernels::Stream& stream, TensorView x) {
  packed_ = x;
  if (options_.rows == DispatchRows::kFp8) {
    packed_ = RowsIn(memory_.packed, x.dim(0));
    memory_.packer.Pack(stream, x, packed_);
  }
}

absl::StatusOr<ExpertBatch> RoutedExchange::Dispatch(TensorView expert_ids,
                                                     TensorView weights,
                                                     int64_t* num_rounds) {
  TESSERA_CHECK(weights.dtype == dtype_);
  const int64_t num_tokens = packed_.dim(0);
  weights_ = options_.weights_travel
                 ? TensorView(lists_.ones.data(), dtype_,
                              {num_tokens, options_.experts_per_token})
                 : weights;
  const auto num_items = static_cast<size_t>(num_tokens * options_.experts_per_token);
  const DispatchMessage own = {
      .items_of_row = std::span(items_of_token_).first(static_cast<size_t>(num_tokens)),
      .expert_of_item = {static_cast<const int32_t*>(expert_ids.data), num_items},
      .weight_of_item = static_cast<const std::byte*>(weights.data),
      .rows = static_cast<const std::byte*>(packed_.data)};
  std::span<const DispatchMessage> messages(&own, 1);
  for (Level& level : levels_) {
    TESSERA_ASSIGN_OR_RETURN(
        messages, level.rows->Dispatch(messages, *num_rounds, level.return_rows));
    // The second level's peers have heard all of their rails, so that all have of all.
    for (const DispatchMessage& message : messages) {
      *num_rounds = std::max(*num_rounds, message.num_rounds);
    }
  }
  return PlaceItems(messages);
}

ExpertBatch RoutedExchange::PlaceItems(std::span<const DispatchMessage> messages) {
  items_.Begin();
  for (const DispatchMessage& from : messages) {
    for (const int32_t expert : from.expert_of_item) {
      items_.Count(expert);
    }
  }
  items_.Offset();
  auto* rows = static_cast<std::byte*>(memory_.rows.data());
  int32_t row = 0;
  size_t arrival = 0;
  for (const DispatchMessage& from : messages) {
    const size_t bytes = from.items_of_row.size() * static_cast<size_t>(row_bytes_);
    if (bytes != 0) {
      std::memcpy(rows, from.rows, bytes);
    }
    rows += bytes;
    size_t item = 0;
    for (const int32_t items_of_row : from.items_of_row) {
      for (int32_t i = 0; i < items_of_row; ++i) {
        const int32_t place = items_.Place(from.expert_of_item[item], row);
        items_.SetWeight(place,
                         from.weight_of_item + item * static_cast<size_t>(weight_bytes_));
        place_of_arrival_[arrival++] = place;
        ++item;
      }
      ++row;
    }
  }
  const int64_t d = options_.hidden_size;
  return ExpertBatch{.rows = RowsIn(memory_.rows, row),
                     .row_of_item = items_.row_of_item(),
                     .item_offsets = items_.item_offsets(),
                     .item_weights = items_.item_weights(),
                     .out = {memory_.outputs.data(), dtype_, {items_.num_items(), d}}};
}

absl::Status RoutedExchange::Return() {
  const auto* outputs = static_cast<const std::byte*>(memory_.outputs.data());
  std::span<const int32_t> row_of_item = place_of_arrival_;
  for (size_t i = levels_.size(); i-- > 0;) {
    const Level& level = levels_[i];
    TESSERA_RETURN_IF_ERROR(level.rows->Return(outputs, row_of_item, level.returned));
    outputs = level.returned;
    row_of_item = level.return_rows;
  }
  return absl::OkStatus();
}

void RoutedExchange::Sum(kernels::Stream& stream, TensorView out) {
  const int64_t num_tokens = packed_.dim(0);
  const int64_t k = options_.experts_per_token;
  const TensorView y(memory_.returned.data(), dtype_,
                     {num_tokens * k, options_.hidden_size});
  const TensorView row_of_slot(lists_.row_of_slot.data(), DType::kI32, {num_tokens, k});
  backend_->CombineExperts(stream, y, row_of_slot, weights_, out);
}

}  // namespace tessera::worker
