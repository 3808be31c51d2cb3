// The CUDA dialect our kernels use, executed on a CPU: grid, blocks, shared memory, barriers.
//
// Each thread of a block is a fibre with a stack of its own. A fibre runs until it reaches a
// barrier or ends; the scheduler then resumes the next one, in an order that can be chosen. In
// every order each unsynchronised pair of accesses happens one way round, and in the reverse order
// the other way round: a missing barrier changes the result in one of them.
//
// Stricter than hardware on purpose: shared memory starts as NaN, is checked for writes beyond
// its end, and a barrier that some thread never reaches is an error.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "centermask/types.h"

namespace cm_host {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

enum class State { ready, at_block_barrier, at_warp_barrier, done };

constexpr size_t kStack = 64 * 1024;
constexpr size_t kGuard = 4096;
constexpr unsigned char kPoison = 0xff;  // NaN as float, double and half
constexpr unsigned kWarp = 32;

struct Fibre {
  jmp_buf here;
  State state = State::ready;
  bool started = false;
};

struct Settings {
  uint32_t order = 0;
  size_t shared_limit = 227 * 1024;
};

inline Settings& settings() {
  static Settings chosen;
  return chosen;
}

// One block at a time; a launch holds the lock until its last block is done.
struct Machine {
  std::mutex lock;
  Dim grid, block_index;
  unsigned threads = 0, current = 0;
  size_t shared_bytes = 0;
  alignas(128) unsigned char shared[228 * 1024 + kGuard];
  std::vector<Fibre> fibres;
  std::unique_ptr<unsigned char[]> stacks;
  std::vector<unsigned> order;
  std::mt19937 random;
  jmp_buf scheduler;
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  uint64_t slots[1024];  // what each lane offers to its warp
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}

inline void leave(State state) {
  Machine& m = machine();
  Fibre& self = m.fibres[m.current];
  self.state = state;
  if (_setjmp(self.here) == 0) _longjmp(m.scheduler, 1);
}

inline void fibre_main() {
  Machine& m = machine();
  for (;;) {
    m.entry(m.argument);
    leave(State::done);
  }
}

inline void resume(unsigned thread) {
  Machine& m = machine();
  m.current = thread;
  Fibre& fibre = m.fibres[thread];
  if (_setjmp(m.scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.here, 1);
  fibre.started = true;
  static ucontext_t context;  // only read while the fibre takes off
  getcontext(&context);
  context.uc_stack.ss_sp = m.stacks.get() + thread * kStack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, fibre_main, 0);
  setcontext(&context);
}

inline void shuffle() {
  Machine& m = machine();
  const uint32_t order = settings().order;
  if (order > 1) std::shuffle(m.order.begin(), m.order.end(), m.random);
}

// Lets waiting fibres go where everyone has arrived. False where nobody can go on.
inline bool release() {
  Machine& m = machine();
  bool moved = false;
  for (unsigned first = 0; first < m.threads; first += kWarp) {
    const unsigned last = std::min(first + kWarp, m.threads);
    bool all = true;
    for (unsigned t = first; t < last; ++t) all &= m.fibres[t].state == State::at_warp_barrier;
    if (!all) continue;
    for (unsigned t = first; t < last; ++t) m.fibres[t].state = State::ready;
    moved = true;
  }
  if (moved) return true;
  for (const Fibre& fibre : m.fibres)
    if (fibre.state != State::at_block_barrier) return false;
  for (Fibre& fibre : m.fibres) fibre.state = State::ready;
  shuffle();
  return true;
}

inline int run_block() {
  Machine& m = machine();
  std::memset(m.shared, kPoison, m.shared_bytes + kGuard);
  for (Fibre& fibre : m.fibres) fibre.state = State::ready;
  shuffle();
  for (;;) {
    for (unsigned thread : m.order)
      if (m.fibres[thread].state == State::ready) resume(thread);
    bool finished = true;
    for (const Fibre& fibre : m.fibres) finished &= fibre.state == State::done;
    if (finished) break;
    if (!release()) {
      for (Fibre& fibre : m.fibres) fibre.started = false;  // abandoned where they wait
      return CM_HOST_BARRIER;
    }
  }
  const unsigned char* guard = m.shared + m.shared_bytes;
  for (size_t i = 0; i < kGuard; ++i)
    if (guard[i] != kPoison) return CM_HOST_SHARED;
  return CM_OK;
}

template <class Params>
int launch(void (*kernel)(Params), Dim grid, unsigned threads, size_t shared, void*,
           const Params& params) {
  Machine& m = machine();
  if (threads == 0 || threads > 1024 || shared > settings().shared_limit) return CM_OVER_LIMIT;
  if (grid.y > 65535 || grid.z > 65535) return CM_OVER_LIMIT;
  const std::lock_guard<std::mutex> alone(m.lock);
  struct Call {
    void (*kernel)(Params);
    const Params* params;
  } call{kernel, &params};
  m.entry = [](void* argument) {
    const Call* c = static_cast<const Call*>(argument);
    c->kernel(*c->params);
  };
  m.argument = &call;
  m.grid = grid;
  m.threads = threads;
  m.shared_bytes = shared;
  m.fibres.assign(threads, Fibre());
  m.order.resize(threads);
  const uint32_t order = settings().order;
  for (unsigned t = 0; t < threads; ++t) m.order[t] = order == 1 ? threads - 1 - t : t;
  m.random.seed(order);
  if (!m.stacks) m.stacks.reset(new unsigned char[1024 * kStack]);
  // Blocks have no order either: the reverse order takes them from the last.
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t block = order == 1 ? blocks - 1 - i : i;
    m.block_index.x = unsigned(block % grid.x);
    m.block_index.y = unsigned(block / grid.x % grid.y);
    m.block_index.z = unsigned(block / grid.x / grid.y);
    if (const int code = run_block()) return code;
  }
  return CM_OK;
}

// What every lane of the warp offered; all lanes of the warp take part.
template <class T>
T exchange(T value, unsigned source_lane) {
  static_assert(sizeof(T) <= 8, "one slot a lane");
  Machine& m = machine();
  const unsigned first = m.current / kWarp * kWarp;
  std::memcpy(&m.slots[m.current], &value, sizeof(T));
  leave(State::at_warp_barrier);
  T result;
  const unsigned source = first + source_lane;
  std::memcpy(&result, &m.slots[source < m.threads ? source : m.current], sizeof(T));
  leave(State::at_warp_barrier);  // nobody overwrites a slot that another still reads
  return result;
}

inline unsigned lane() { return machine().current % kWarp; }

}  // namespace cm_host

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

#define threadIdx (cm_host::Dim{cm_host::machine().current, 0, 0})
#define blockIdx (cm_host::machine().block_index)
#define blockDim (cm_host::Dim{cm_host::machine().threads, 1, 1})
#define gridDim (cm_host::machine().grid)

inline void __syncthreads() { cm_host::leave(cm_host::State::at_block_barrier); }
inline void __syncwarp(unsigned = ~0u) { cm_host::leave(cm_host::State::at_warp_barrier); }
inline void __threadfence() {}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return cm_host::exchange(value, unsigned(lane) % cm_host::kWarp);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cm_host::exchange(value, cm_host::lane() ^ unsigned(mask));
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta) {
  const unsigned source = cm_host::lane() + delta;
  return cm_host::exchange(value, source < cm_host::kWarp ? source : cm_host::lane());
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const unsigned lane = cm_host::lane();
  return cm_host::exchange(value, lane >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  unsigned bits = 0;
  cm_host::Machine& m = cm_host::machine();
  const unsigned first = m.current / cm_host::kWarp * cm_host::kWarp;
  m.slots[m.current] = predicate != 0;
  cm_host::leave(cm_host::State::at_warp_barrier);
  for (unsigned i = 0; i < cm_host::kWarp && first + i < m.threads; ++i)
    bits |= unsigned(m.slots[first + i]) << i;
  cm_host::leave(cm_host::State::at_warp_barrier);
  return bits;
}
template <class T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <class T>
T atomicMax(T* address, T value) {
  const T before = *address;
  *address = std::max(before, value);
  return before;
}
template <class T>
T atomicMin(T* address, T value) {
  const T before = *address;
  *address = std::min(before, value);
  return before;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }

// Never contracted into fused multiply-adds (the build passes -ffp-contract=off).
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline int __float2int_rn(float a) {
  // As the hardware: to nearest even, saturating, NaN to 0.
  if (std::isnan(a)) return 0;
  if (a >= 2147483648.0f) return INT32_MAX;
  if (a < -2147483648.0f) return INT32_MIN;
  return int(std::lrint(a));
}
inline unsigned __float_as_uint(float a) {
  unsigned bits;
  std::memcpy(&bits, &a, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float a;
  std::memcpy(&a, &bits, 4);
  return a;
}

// IEEE binary16, converted bit by bit so that no compiler support is needed.
struct __half {
  uint16_t bits;
};
inline float __half2float(__half h) {
  const unsigned sign = unsigned(h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31u;
  unsigned fraction = h.bits & 1023u;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) {
    const float tiny = float(fraction) * 0x1p-24f;
    return __uint_as_float(sign | __float_as_uint(tiny));
  }
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
inline __half __float2half_rn(float value) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
  const unsigned magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7fffu)};
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds past 65504
  if (magnitude < 0x38800000u) {                                     // below 2^-14: subnormal
    const float scaled = __uint_as_float(magnitude) * 0x1p24f;       // exact
    return {uint16_t(sign | unsigned(std::lrint(scaled)))};
  }
  const unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return {uint16_t(sign | (rounded - 0x38000000u) >> 13)};
}

struct uint4 {
  unsigned x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
