// What a kernel, compiled with shim.h, and the runtime know of each other.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MSL_API __attribute__((visibility("default")))

struct msl_u3 {
  uint32_t x, y, z;
};

// Everything a Metal [[attribute]] parameter can ask for.
struct msl_builtins {
  msl_u3 thread_position_in_grid, thread_position_in_threadgroup,
      threadgroup_position_in_grid, threadgroups_per_grid, threads_per_grid,
      threads_per_threadgroup, dispatch_threads_per_threadgroup, grid_origin, grid_size;
  uint32_t thread_index_in_threadgroup, thread_index_in_simdgroup,
      simdgroup_index_in_threadgroup, simdgroups_per_threadgroup,
      dispatch_simdgroups_per_threadgroup, threads_per_simdgroup,
      thread_execution_width, thread_index_in_quadgroup, quadgroup_index_in_threadgroup,
      quadgroups_per_threadgroup, dispatch_quadgroups_per_threadgroup;
};

typedef void (*msl_entry_fn)(void** bufs, const msl_builtins* t);
// Called once per rendezvous by the last lane to arrive; slots are 32 times MSL_SLOT
// bytes.
typedef void (*msl_fin_fn)(void* slots, uint32_t mask);

#define MSL_SLOT 64
#define MSL_MAX_THREADGROUP_VARIABLES 64

struct msl_simdgroup {
  alignas(64) unsigned char slots[2][32 * MSL_SLOT];
  uint32_t alive, ready, wait_simd, wait_bar, init;
  uint32_t gen;  // its parity picks the set of slots
  int32_t site[32];
  msl_fin_fn fin;
  uint32_t last_mask;
};

struct msl_thread {
  msl_simdgroup* sg;
  uint32_t lane;
  msl_builtins b;
};

extern "C" {
extern thread_local msl_thread* msl_self;
// Blocks until every live lane of the simdgroup arrives; returns who did, as bits.
uint32_t msl_rendezvous(int site, msl_fin_fn fin);
// Bit 0 of scope: threadgroup rather than simdgroup; from bit 8 on, Metal's mem_flags.
void msl_barrier(int site, int scope);
void* msl_tg_alloc(int id, size_t size);
void msl_fail(const char* what, int site);
// Filled in by static registrars of the kernel.
extern size_t msl_tg_sizes[MSL_MAX_THREADGROUP_VARIABLES];
}
