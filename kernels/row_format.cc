#include "kernels/row_format.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

#include "common/check.h"
#include "kernels/group_scale.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

constexpr int64_t kScaleAlignment = 8;

// max |x|, or NaN if a value is not finite.
float LargestMagnitude(const float* values, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    largest = std::max(largest, std::abs(values[i]));
  }
  return largest;
}

bool HoldsExactly(float scale, const float* values, int64_t n) {
  return std::all_of(values, values + n, [=](float value) {
    return model::Fp4ToFloat(model::FloatToFp4(value / scale)) * scale == value;
  });
}

// Scales e4m3 are not powers of two: a group that was rounded once keeps its values only
// under the scale of then, which its largest value over one of the codes gives back.
float Fp4E4M3ScaleOf(float largest, const float* values, int64_t n) {
  const float usual = Fp4GroupScale(Fp4Scale::kE4M3, largest);
  if (HoldsExactly(usual, values, n)) {
    return usual;
  }
  for (const float code : {4.0F, 3.0F, 2.0F, 1.5F, 1.0F, 0.5F}) {
    const float scale = model::E4M3ToFloat(model::FloatToE4M3(largest / code));
    if (scale * code == largest && HoldsExactly(scale, values, n)) {
      return scale;
    }
  }
  return usual;
}

float ScaleOf(const RowFormat& format, const float* values, int64_t n) {
  const float largest = LargestMagnitude(values, n);
  if (std::isnan(largest)) {
    return largest;
  }
  if (format.code == RowCode::kE4M3) {
    return E4M3GroupScale(largest);
  }
  return format.scale == RowScale::kE4M3 ? Fp4E4M3ScaleOf(largest, values, n)
                                         : Fp4GroupScale(Fp4Scale::kE8M0, largest);
}

void StoreScale(const RowFormat& format, int64_t group, float scale, std::byte* row) {
  std::byte* at = row + format.scales_begin();
  switch (format.scale) {
    case RowScale::kF32:
      std::memcpy(at + group * 4, &scale, sizeof(scale));
      return;
    case RowScale::kE8M0:
      at[group] = std::isnan(scale) ? std::byte{255}
                                    : static_cast<std::byte>(model::FloatToE8M0(scale));
      return;
    case RowScale::kE4M3:
      at[group] = static_cast<std::byte>(model::FloatToE4M3(scale));
      return;
  }
}

float LoadScale(const RowFormat& format, int64_t group, const std::byte* row) {
  const std::byte* at = row + format.scales_begin();
  float scale = 0;
  switch (format.scale) {
    case RowScale::kF32:
      std::memcpy(&scale, at + group * 4, sizeof(scale));
      break;
    case RowScale::kE8M0:
      scale = model::E8M0ToFloat(static_cast<uint8_t>(at[group]));
      break;
    case RowScale::kE4M3:
      scale = model::E4M3ToFloat(static_cast<uint8_t>(at[group]));
      break;
  }
  return scale;
}

void StoreCodes(RowCode code, const float* values, float scale, int64_t n,
                std::byte* codes) {
  if (code == RowCode::kE4M3) {
    for (int64_t i = 0; i < n; ++i) {
      codes[i] = static_cast<std::byte>(model::FloatToE4M3(values[i] / scale));
    }
    return;
  }
  // A damaged group is told by its scale: fp4 has no NaN.
  const bool damaged = std::isnan(scale);
  for (int64_t i = 0; i < n; i += 2) {
    const uint8_t low = damaged ? uint8_t{0} : model::FloatToFp4(values[i] / scale);
    const uint8_t high = damaged ? uint8_t{0} : model::FloatToFp4(values[i + 1] / scale);
    codes[i / 2] = static_cast<std::byte>(low | (high << 4));
  }
}

void LoadCodes(RowCode code, const std::byte* codes, float scale, int64_t n,
               float* values) {
  for (int64_t i = 0; i < n; ++i) {
    if (code == RowCode::kE4M3) {
      values[i] = model::E4M3ToFloat(static_cast<uint8_t>(codes[i])) * scale;
    } else {
      const auto pair = static_cast<uint8_t>(codes[i / 2]);
      values[i] =
          model::Fp4ToFloat(static_cast<uint8_t>(i % 2 == 0 ? pair & 15 : pair >> 4)) *
          scale;
    }
  }
}

// Calls visit(group, first value, values, offset of the first code) for each group.
template <typename Visit>
void ForEachGroup(const RowFormat& format, const Visit& visit) {
  TESSERA_CHECK(format.is_packed() && format.group > 0);
  TESSERA_CHECK(format.code != RowCode::kFp4 ||
                (format.group % 2 == 0 && format.coded % 2 == 0));
  for (int64_t group = 0; group < format.num_groups(); ++group) {
    const int64_t begin = group * format.group;
    visit(group, begin, std::min(format.group, format.coded - begin),
          format.code == RowCode::kFp4 ? begin / 2 : begin);
  }
}

size_t RestCount(const RowFormat& format) {
  return static_cast<size_t>(format.width - format.coded);
}

}  // namespace

int64_t RowFormat::scale_bytes() const {
  if (!is_packed()) {
    return 0;
  }
  const int64_t bytes = num_groups() * (scale == RowScale::kF32 ? 4 : 1);
  return scale == RowScale::kE8M0 && code == RowCode::kE4M3
             ? (bytes + kScaleAlignment - 1) / kScaleAlignment * kScaleAlignment
             : bytes;
}

void PackRow(const RowFormat& format, const float* values, std::byte* row) {
  std::fill_n(row + format.scales_begin(), format.scale_bytes(), std::byte{0});
  ForEachGroup(format, [&](int64_t group, int64_t begin, int64_t n, int64_t codes) {
    const float scale = ScaleOf(format, values + begin, n);
    StoreScale(format, group, scale, row);
    StoreCodes(format.code, values + begin, scale, n, row + codes);
  });
  model::EncodeBf16(std::span(values + format.coded, RestCount(format)),
                    std::span(row + format.rest_begin(), 2 * RestCount(format)));
}

void UnpackRow(const RowFormat& format, const std::byte* row, float* values) {
  ForEachGroup(format, [&](int64_t group, int64_t begin, int64_t n, int64_t codes) {
    LoadCodes(format.code, row + codes, LoadScale(format, group, row), n, values + begin);
  });
  model::DecodeBf16(std::span(row + format.rest_begin(), 2 * RestCount(format)),
                    std::span(values + format.coded, RestCount(format)));
}

}  // namespace tessera::kernels
