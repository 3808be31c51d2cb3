// What the processor's 8-bit multiply-add instruction can do at most: nothing but it, in registers.
#include <immintrin.h>

#include <thread>
#include <vector>

namespace {

constexpr int kChains = 24;  // independent sums: more than latency times throughput asks for
constexpr int kMacs = 64;    // of one instruction on 512 bits

__attribute__((noinline)) int spin(long rounds) {
  __m512i sum[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
  for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) asm volatile("" : "+v"(sum[i]));  // in a register, as it is
  }
  __m512i total = sum[0];
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) total = _mm512_add_epi32(total, sum[i]);
  return _mm512_reduce_add_epi32(total);
}

}  // namespace

// Multiply-adds of one call: every thread does `rounds` rounds.
extern "C" double macs_of(int threads, long rounds) {
  return double(threads) * double(rounds) * kChains * kMacs;
}

extern "C" int spin_all(int threads, long rounds) {
  std::vector<std::thread> others;
  volatile int kept = 0;
  for (int i = 1; i < threads; ++i) others.emplace_back([&kept, rounds] { kept = spin(rounds); });
  kept = spin(rounds);
  for (std::thread& other : others) other.join();
  return kept;
}
