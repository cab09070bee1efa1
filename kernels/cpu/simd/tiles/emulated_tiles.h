// Runs the tile instructions of a program on processors that lack them: they fault there,
// and are then decoded and done by SoftwareTiles. So the very machine code of simd_amx.cc
// runs in tests, instruction encodings and operand orders included. For tests alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_EMULATED_TILES_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_EMULATED_TILES_H_

#include <csignal>

namespace tessera::kernels::cpu {

// While it lives, tile instructions of the thread that made it use ThreadTiles(). Any
// other illegal instruction ends the process as ever. One at a time.
class EmulatedTiles {
 public:
  EmulatedTiles();
  ~EmulatedTiles();
  EmulatedTiles(const EmulatedTiles&) = delete;
  EmulatedTiles& operator=(const EmulatedTiles&) = delete;

 private:
  struct sigaction former_ = {};
};

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_EMULATED_TILES_H_
