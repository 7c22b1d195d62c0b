// One fiber per Metal thread; a worker runs one threadgroup after another.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime.h"

#if defined(__SANITIZE_THREAD__) || \
    (defined(__has_feature) && __has_feature(thread_sanitizer))
#define MSL_TSAN 1
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define NOSAN __attribute__((no_sanitize("thread"), disable_sanitizer_instrumentation))
#else
#define MSL_TSAN 0
#define NOSAN
#endif
#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define MSL_MSAN 1
#endif
#endif

// An order of the caller's: see `Options` in run.py.
struct Options {
  uint32_t seed;     // 0: in order; else threads and threadgroups in random order
  uint32_t workers;  // OS threads
  uint32_t poison;   // byte used to fill threadgroup memory
  uint32_t strict;   // 1: barriers after early return / divergent simd ops are errors
  uint32_t max_tg_mem;  // 32768
};
struct Stats {
  uint64_t switches, simd_ops, barriers, tg_mem;
};

constexpr size_t STACK_BYTES =
#if MSL_TSAN || defined(__SANITIZE_ADDRESS__) || \
    (defined(__has_feature) &&                   \
     (__has_feature(address_sanitizer) || __has_feature(memory_sanitizer)))
    256 * 1024;
#else
    64 * 1024;
#endif

struct Worker;
struct Fiber {
  msl_thread t;
  void* sp;
  char* stack;
  Worker* w;
  bool done;
#if MSL_TSAN
  void* tsan_fiber;
#endif
};

struct Worker {
  msl_entry_fn fn;
  void** bufs;
  Options o;
  uint32_t n = 0, n_simdgroups = 0;
  std::vector<Fiber> f;
  std::vector<msl_simdgroup> sg;
  char* arena = nullptr;
  size_t arena_n = 0;
  void* sched_sp = nullptr;
  uint32_t current = 0, alive = 0, n_at_barrier = 0, rr = 0;
  uint64_t rng = 1;
  int barrier_site = 0;
  msl_u3 tg_position{};
  Stats stats{};
  struct TG {
    void* p;
    size_t n;
  };
  std::vector<TG> tg;
#if MSL_TSAN
  void* sched_tsan_fiber = nullptr;
#endif
  NOSAN uint32_t random() {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng >> 16);
  }
};

extern thread_local Worker* current_worker;
extern std::atomic<bool> has_failed;
extern char failure[2048];

// Keep the first failure of a dispatch, with where it happened.
void set_failure(const char* what, int site);
// The next fiber of the threadgroup that can run, or null.
Fiber* next_runnable(Worker* w, int preferred_simdgroup);
// Everybody waits: complete a barrier (true), or say what is wrong (false).
bool resolve(Worker* w);
// Leave `save` and go on in a fiber, or in the worker's own loop.
void switch_to_fiber(void** save, Fiber* to);
void switch_to_worker(void** save);
// The stack pointer of a fiber that has not begun.
void* initial_stack_pointer(char* stack);
