#include "kernels/group_scale.h"

#include <algorithm>

#include "model/formats/number_formats.h"

namespace tessera::kernels {
namespace {

// The smallest maxima that scales are made from: scales 2^-126 and 2^-9.
constexpr float kFp4E8M0AmaxFloor = 6.0F * 0x1p-126F;
constexpr float kFp4E4M3AmaxFloor = 6.0F * 0x1p-9F;

}  // namespace

float E4M3GroupScale(float largest) {
  return model::PowerOfTwoCeil(std::max(largest, model::kActivationAmaxFloor) *
                               (1.0F / 448.0F));
}

float Fp4GroupScale(Fp4Scale kind, float largest) {
  if (kind == Fp4Scale::kE8M0) {
    return model::PowerOfTwoCeil(std::max(largest, kFp4E8M0AmaxFloor) * (1.0F / 6.0F));
  }
  return model::E4M3ToFloat(
      model::FloatToE4M3(std::max(largest, kFp4E4M3AmaxFloor) / 6.0F));
}

}  // namespace tessera::kernels
