#include "kernels/cpu/simd/tiles/emulated_tiles.h"

#include <csignal>
#include <cstdint>
#include <cstring>

#include <ucontext.h>

#include "common/check.h"
#include "kernels/cpu/simd/tiles/software_tiles.h"

namespace tessera::kernels::cpu {
namespace {

// General registers by their number in an instruction.
constexpr int kRegisters[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                              REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                              REG_R12, REG_R13, REG_R14, REG_R15};

// Which prefix a VEX instruction stands for.
enum class Prefix { kNone, k66, kF3, kF2 };

// A three-byte VEX instruction of the map 0F38, in which all tile instructions are.
struct Decoded {
  Prefix prefix;
  uint8_t opcode;
  int reg;                 // ModRM.reg
  int rm;                  // ModRM.rm where it is a register
  int second;              // VEX.vvvv
  bool memory;             // ModRM names memory, then:
  const uint8_t* address;  // without the index
  int64_t index;           // scaled; of tiles the stride
  int64_t length;          // in bytes
};

int64_t Register(const mcontext_t& machine, int number) {
  return machine.gregs[kRegisters[number]];
}

// Where ModRM at `at` points to; the displacement is last in these instructions.
void DecodeMemory(const mcontext_t& machine, const uint8_t* code, int vex_inverted,
                  Decoded* out) {
  const uint8_t* at = code + 4;
  const int mode = *at >> 6;
  int base = *at++ & 7;
  const bool has_sib = base == 4;
  int index = 4;
  int scale = 0;
  if (has_sib) {
    scale = *at >> 6;
    index = (*at >> 3) & 7;
    base = *at++ & 7;
  }
  index += (vex_inverted & 2) != 0 ? 8 : 0;
  const bool from_next = !has_sib && base == 5 && mode == 0;
  const bool no_base = has_sib && base == 5 && mode == 0;
  base += (vex_inverted & 1) != 0 ? 8 : 0;
  int64_t address = 0;
  if (mode == 1) {
    address = static_cast<int8_t>(*at++);
  } else if (mode == 2 || from_next || no_base) {
    int32_t displacement;
    std::memcpy(&displacement, at, sizeof(displacement));
    address = displacement;
    at += sizeof(displacement);
  }
  out->length = at - code;
  if (from_next) {
    address += reinterpret_cast<int64_t>(at);
  } else if (!no_base) {
    address += Register(machine, base);
  }
  out->address = reinterpret_cast<const uint8_t*>(address);
  out->index = index == 4 ? 0 : Register(machine, index) << scale;
}

bool Decode(const mcontext_t& machine, const uint8_t* code, Decoded* out) {
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) {
    return false;
  }
  out->prefix = static_cast<Prefix>(code[2] & 3);
  out->second = (~code[2] >> 3) & 15;
  out->opcode = code[3];
  out->reg = (code[4] >> 3) & 7;
  out->rm = code[4] & 7;
  out->memory = code[4] >> 6 != 3;
  out->length = 5;
  if (out->memory) {
    DecodeMemory(machine, code, ~code[1] >> 5, out);
  }
  return true;
}

// False if it is no instruction that kernels use.
bool Execute(const Decoded& code, SoftwareTiles* tiles) {
  const Prefix prefix = code.prefix;
  if (code.opcode == 0x49 && code.memory && prefix == Prefix::kNone) {
    TileConfig config;
    std::memcpy(&config, code.address + code.index, sizeof(config));
    tiles->Configure(config);
  } else if (code.opcode == 0x49 && !code.memory && prefix == Prefix::kNone) {
    tiles->Release();
  } else if (code.opcode == 0x49 && !code.memory && prefix == Prefix::kF2) {
    tiles->Zero(code.reg);
  } else if (code.opcode == 0x4b && code.memory && prefix == Prefix::kF2) {
    tiles->Load(code.reg, code.address, code.index);
  } else if (code.opcode == 0x4b && code.memory && prefix == Prefix::kF3) {
    tiles->Store(code.reg, const_cast<uint8_t*>(code.address), code.index);
  } else if (code.opcode == 0x5e && !code.memory && prefix == Prefix::kF3) {
    tiles->AddProducts(code.reg, code.rm, code.second);
  } else {
    return false;
  }
  return true;
}

void OnIllegalInstruction(int signal, siginfo_t*, void* context) {
  mcontext_t& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
  const auto* code = reinterpret_cast<const uint8_t*>(machine.gregs[REG_RIP]);
  Decoded decoded = {};
  if (Decode(machine, code, &decoded) && Execute(decoded, &ThreadTiles())) {
    machine.gregs[REG_RIP] += decoded.length;
    return;
  }
  std::signal(signal, SIG_DFL);  // and it is executed again
}

}  // namespace

EmulatedTiles::EmulatedTiles() {
  ThreadTiles().Reset();
  struct sigaction action = {};
  action.sa_sigaction = OnIllegalInstruction;
  action.sa_flags = SA_SIGINFO;
  TESSERA_CHECK_EQ(sigaction(SIGILL, &action, &former_), 0);
}

EmulatedTiles::~EmulatedTiles() {
  TESSERA_CHECK_EQ(sigaction(SIGILL, &former_, nullptr), 0);
}

}  // namespace tessera::kernels::cpu
