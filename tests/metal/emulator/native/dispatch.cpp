// A dispatch: threadgroups in random or given order over some workers.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "guards.h"
#include "scheduler.h"

size_t msl_tg_sizes[MSL_MAX_THREADGROUP_VARIABLES];

namespace {
void run_tg(Worker* w, msl_u3 pos, msl_u3 grid, msl_u3 tg, msl_u3 ntg) {
  w->tg_position = pos;
  auto clip = [](uint32_t g, uint32_t p, uint32_t t) {
    uint32_t r = g - p * t;
    return r < t ? r : t;
  };
  msl_u3 sz{clip(grid.x, pos.x, tg.x), clip(grid.y, pos.y, tg.y),
            clip(grid.z, pos.z, tg.z)};
  uint32_t n = sz.x * sz.y * sz.z;
  w->n = w->alive = n;
  w->n_at_barrier = 0;
  w->rr = 0;
  w->n_simdgroups = (n + 31) / 32;
  uint32_t nfull = (tg.x * tg.y * tg.z + 31) / 32;
  w->tg.resize(MSL_MAX_THREADGROUP_VARIABLES);
  for (int i = 0; i < MSL_MAX_THREADGROUP_VARIABLES; i++) {
    auto& e = w->tg[i];
    if (!msl_tg_sizes[i]) continue;
#if MSL_TSAN
    e.p = nullptr;  // a fresh block, with its shadow, per threadgroup; left over
#endif
    if (!e.p) {
      e.n = msl_tg_sizes[i];
      if (posix_memalign(&e.p, 16, e.n)) abort();
    }
    memset(e.p, (int)w->o.poison, e.n);
#ifdef MSL_MSAN
    __msan_poison(e.p, e.n);
#endif
  }
  for (uint32_t s = 0; s < w->n_simdgroups; s++) {
    auto& g = w->sg[s];
    uint32_t c = n - s * 32 < 32 ? n - s * 32 : 32;
    g.alive = g.ready = c == 32 ? 0xffffffffu : (1u << c) - 1;
    g.init = g.alive;
    g.wait_simd = g.wait_bar = 0;
    g.gen = 0;
    g.fin = nullptr;
  }
  for (uint32_t i = 0; i < n; i++) {
    Fiber& f = w->f[i];
    f.done = false;
    f.w = w;
    f.stack = w->arena + (size_t)i * STACK_BYTES;
    f.sp = initial_stack_pointer(f.stack);
    f.t.sg = &w->sg[i / 32];
    f.t.lane = i % 32;
    auto& b = f.t.b;
    msl_u3 p{i % sz.x, (i / sz.x) % sz.y, i / (sz.x * sz.y)};
    b.thread_position_in_threadgroup = p;
    b.thread_position_in_grid = {pos.x * tg.x + p.x, pos.y * tg.y + p.y,
                                 pos.z * tg.z + p.z};
    b.threadgroup_position_in_grid = pos;
    b.threadgroups_per_grid = ntg;
    b.threads_per_grid = b.grid_size = grid;
    b.grid_origin = {0, 0, 0};
    b.threads_per_threadgroup = sz;
    b.dispatch_threads_per_threadgroup = tg;
    b.thread_index_in_threadgroup = i;
    b.thread_index_in_simdgroup = i % 32;
    b.simdgroup_index_in_threadgroup = i / 32;
    b.simdgroups_per_threadgroup = w->n_simdgroups;
    b.dispatch_simdgroups_per_threadgroup = nfull;
    b.threads_per_simdgroup = b.thread_execution_width = 32;
    b.thread_index_in_quadgroup = i % 4;
    b.quadgroup_index_in_threadgroup = i / 4;
    b.quadgroups_per_threadgroup = (n + 3) / 4;
    b.dispatch_quadgroups_per_threadgroup = nfull * 8;
#if MSL_TSAN
    __tsan_release(&f);  // scheduler -> fiber edge at start only
#endif
  }
#if MSL_TSAN
  // Give each fiber a happens-before edge from the scheduler (never the reverse)
  for (uint32_t i = 0; i < n; i++) {
    __tsan_switch_to_fiber(w->f[i].tsan_fiber, 0);
    __tsan_switch_to_fiber(w->sched_tsan_fiber, 1);
  }
#endif
  Fiber* nx;
  while (w->alive && !has_failed.load(std::memory_order_relaxed)) {
    nx = next_runnable(w, -1);
    if (!nx) {
      if (!resolve(w)) break;
      continue;
    }
    switch_to_fiber(&w->sched_sp, nx);
  }
}
}  // namespace

extern "C" MSL_API int msl_dispatch(msl_entry_fn fn, void** bufs, const uint32_t* grid3,
                                    const uint32_t* tg3, const uint32_t* opts,
                                    uint64_t* stats, char* err, int errn) {
  Options o{opts[0], opts[1], opts[2], opts[3], opts[4]};
  msl_u3 grid{grid3[0], grid3[1], grid3[2]}, tg{tg3[0], tg3[1], tg3[2]};
  tg.x = tg.x < grid.x ? tg.x : grid.x;
  tg.y = tg.y < grid.y ? tg.y : grid.y;
  tg.z = tg.z < grid.z ? tg.z : grid.z;
  msl_u3 ntg{(grid.x + tg.x - 1) / tg.x, (grid.y + tg.y - 1) / tg.y,
             (grid.z + tg.z - 1) / tg.z};
  uint32_t N = tg.x * tg.y * tg.z;
  has_failed = 0;
  failure[0] = 0;
  auto bail = [&](const char* m) {
    snprintf(err, errn, "%s", m);
    return 1;
  };
  if (N == 0 || N > 1024) return bail("threadgroup size must be 1..1024");
  size_t mem = 0;
  for (size_t s : msl_tg_sizes) mem += (s + 15) / 16 * 16;
  if (mem > o.max_tg_mem) {
    char m[128];
    snprintf(m, 128, "threadgroup memory %zu exceeds %u bytes", mem, o.max_tg_mem);
    return bail(m);
  }
  uint64_t total = (uint64_t)ntg.x * ntg.y * ntg.z;
  std::atomic<uint64_t> next{0};
  // A random order of the threadgroups: i -> (i * mul + add) mod total.
  uint64_t mul = 1, add = 0;
  if (o.seed && total > 1) {
    uint64_t s = o.seed * 0x9E3779B97F4A7C15ull + 12345;
    auto gcd = [](uint64_t a, uint64_t b) {
      while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
      }
      return a;
    };
    do {
      s = s * 6364136223846793005ull + 1442695040888963407ull;
      mul = (s >> 33) % total;
    } while (mul == 0 || gcd(mul, total) != 1);
    add = (s >> 17) % total;
  }
  uint32_t nw = MSL_TSAN ? 1 : (o.workers ? o.workers : 1);
  if (nw > total) nw = (uint32_t)total;
  std::vector<Stats> sts(nw);
  watch_guards();
  auto body = [&](uint32_t wi) {
    Worker w;
    current_worker = &w;
    w.fn = fn;
    w.bufs = bufs;
    w.o = o;
    w.rng = 0x1234567ull + o.seed * 7919ull + wi;
    w.f.resize((N + 31) / 32 * 32);
    w.sg.resize((N + 31) / 32);
    w.arena_n = (size_t)N * STACK_BYTES;
    w.arena = (char*)mmap(nullptr, w.arena_n, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
#if MSL_TSAN
    w.sched_tsan_fiber = __tsan_get_current_fiber();
    for (auto& f : w.f) f.tsan_fiber = __tsan_create_fiber(0);
#endif
    for (;;) {
      uint64_t i = next.fetch_add(1);
      if (i >= total || has_failed.load(std::memory_order_relaxed)) break;
      uint64_t k = (i * mul + add) % total;
      run_tg(&w,
             {(uint32_t)(k % ntg.x), (uint32_t)(k / ntg.x % ntg.y),
              (uint32_t)(k / ntg.x / ntg.y)},
             grid, tg, ntg);
    }
#if !MSL_TSAN
    for (auto& e : w.tg) free(e.p);
#endif
#if MSL_TSAN
    for (auto& f : w.f) {  // The host may read outputs only after this edge
      __tsan_switch_to_fiber(f.tsan_fiber, 1);
      __tsan_switch_to_fiber(w.sched_tsan_fiber, 0);
      __tsan_destroy_fiber(f.tsan_fiber);
    }
#endif
    munmap(w.arena, w.arena_n);
    w.stats.tg_mem = mem;
    sts[wi] = w.stats;
    current_worker = nullptr;
  };
  if (nw == 1)
    body(0);
  else {
    std::vector<std::thread> th;
    for (uint32_t i = 0; i < nw; i++) th.emplace_back(body, i);
    for (auto& t : th) t.join();
  }
  unwatch_guards();
  Stats s{};
  for (auto& x : sts) {
    s.switches += x.switches;
    s.simd_ops += x.simd_ops;
    s.barriers += x.barriers;
    s.tg_mem = x.tg_mem;
  }
  if (stats) memcpy(stats, &s, sizeof s);
  if (has_failed) {
    snprintf(err, errn, "%s", failure);
    return 1;
  }
  return 0;
}
