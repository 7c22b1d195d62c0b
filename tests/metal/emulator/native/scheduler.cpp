// Who runs next, who waits for whom, and what a kernel must not do.
#include "scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

thread_local msl_thread* msl_self = nullptr;
thread_local Worker* current_worker = nullptr;
std::atomic<bool> has_failed{false};
char failure[2048];

// Conversions that clang calls and libgcc 12 does not have.
extern "C" __attribute__((weak)) __bf16 __truncsfbf2(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  uint16_t h;
  if ((u & 0x7fffffffu) > 0x7f800000u)
    h = (uint16_t)((u >> 16) | 0x40);
  else
    h = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
  __bf16 r;
  memcpy(&r, &h, 2);
  return r;
}
extern "C" __attribute__((weak)) __bf16 __truncdfbf2(double d) {
  return __truncsfbf2((float)d);
}

namespace {
std::mutex failure_mutex;

NOSAN int pick(uint32_t mask, Worker* w) {
  if (w->o.seed == 0) return __builtin_ctz(mask);
  int k = w->random() % __builtin_popcount(mask);
  while (k--) mask &= mask - 1;
  return __builtin_ctz(mask);
}
}  // namespace

NOSAN Fiber* next_runnable(Worker* w, int preferred_simdgroup) {
  if (w->o.seed == 0) {
    if (preferred_simdgroup >= 0 && w->sg[preferred_simdgroup].ready)
      return &w->f[preferred_simdgroup * 32 +
                   __builtin_ctz(w->sg[preferred_simdgroup].ready)];
    for (uint32_t k = 0; k < w->n_simdgroups; k++) {
      uint32_t s = (w->rr + k) % w->n_simdgroups;
      if (w->sg[s].ready) {
        w->rr = s;
        return &w->f[s * 32 + __builtin_ctz(w->sg[s].ready)];
      }
    }
    return nullptr;
  }
  uint32_t start = w->random() % w->n_simdgroups;
  for (uint32_t k = 0; k < w->n_simdgroups; k++) {
    uint32_t s = (start + k) % w->n_simdgroups;
    if (w->sg[s].ready) return &w->f[s * 32 + pick(w->sg[s].ready, w)];
  }
  return nullptr;
}
NOSAN void set_failure(const char* what, int site) {
  std::lock_guard<std::mutex> g(failure_mutex);
  if (!has_failed.exchange(1)) {
    Worker* w = current_worker;
    snprintf(failure, sizeof failure, "%s [line %d, threadgroup (%u,%u,%u), thread %u]",
             what, site, w ? w->tg_position.x : 0, w ? w->tg_position.y : 0,
             w ? w->tg_position.z : 0, w ? w->current : 0);
  }
}
NOSAN bool resolve(Worker* w) {
  if (w->alive == 0) return false;
  if (w->n_at_barrier == w->alive) {
    if (w->alive != w->n && w->o.strict) {
      char m[160];
      snprintf(m, sizeof m,
               "threadgroup_barrier reached by %u of %u threads (the others returned)",
               w->alive, w->n);
      set_failure(m, w->barrier_site);
      return false;
    }
    w->n_at_barrier = 0;
    w->stats.barriers++;
    for (auto& s : w->sg) {
      s.ready |= s.wait_bar;
      s.wait_bar = 0;
    }
    return true;
  }
  // Somebody waits in a simd op that not all lanes of its simdgroup reached
  for (uint32_t i = 0; i < w->n_simdgroups; i++) {
    auto& s = w->sg[i];
    if (s.wait_simd) {
      int site = s.site[__builtin_ctz(s.wait_simd)], other = 0;
      uint32_t same = 0;
      for (int l = 0; l < 32; l++)
        if (s.wait_simd >> l & 1) {
          if (s.site[l] == site)
            same |= 1u << l;
          else
            other = s.site[l];
        }
      if (w->o.strict) {
        char m[256];
        snprintf(
            m, sizeof m,
            "divergent simdgroup operation: simdgroup %u lanes %08x wait at line %d, "
            "lanes %08x elsewhere (simd line %d, barrier lanes %08x, live %08x)",
            i, same, site, s.alive & ~same, other, s.wait_bar, s.alive);
        set_failure(m, site);
        return false;
      }
      // Not strict: over the lanes that are there, as hardware does.
      s.last_mask = same;
      if (s.fin) s.fin(s.slots[s.gen & 1], same);
      s.gen++;
      s.ready |= same;
      s.wait_simd &= ~same;
      return true;
    }
  }
  char m[200];
  snprintf(m, sizeof m,
           "barrier divergence: %u of %u live threads at the barrier, none runnable",
           w->n_at_barrier, w->alive);
  set_failure(m, w->barrier_site);
  return false;
}
namespace {
NOSAN void leave(Fiber* me, int sgi) {  // me is blocked or finished
  Worker* w = current_worker;
  for (;;) {
    Fiber* nx = next_runnable(w, sgi);
    if (nx) {
      if (nx == me) {
        w->current = (uint32_t)(me - w->f.data());
        return;
      }
      switch_to_fiber(&me->sp, nx);
      return;
    }
    if (!resolve(w)) {
      switch_to_worker(&me->sp);
      return;
    }
  }
}
}  // namespace

extern "C" NOSAN void msl_fiber_main() {
  Worker* w = current_worker;
  Fiber* me = &w->f[w->current];
  w->fn(w->bufs, &me->t.b);
  w = current_worker;
  me->done = true;
  auto& s = *me->t.sg;
  int sgi = (int)(&s - w->sg.data());
  s.alive &= ~(1u << me->t.lane);
  s.ready &= ~(1u << me->t.lane);
  w->alive--;
  // Finishing may complete a simd op the others wait in
  if (s.wait_simd && s.wait_simd == s.alive && w->o.strict) {
    char m[160];
    snprintf(m, sizeof m,
             "simdgroup operation after lanes %08x of simdgroup %d returned",
             s.init & ~s.alive, sgi);
    set_failure(m, s.site[__builtin_ctz(s.wait_simd)]);
  } else if (s.wait_simd && s.wait_simd == s.alive) {
    s.last_mask = s.wait_simd;
    if (s.fin) s.fin(s.slots[s.gen & 1], s.wait_simd);
    s.gen++;
    s.ready |= s.wait_simd;
    s.wait_simd = 0;
  }
  leave(me, sgi);
  abort();  // never resumed
}
extern "C" NOSAN uint32_t msl_rendezvous(int site, msl_fin_fn fin) {
  msl_thread* t = msl_self;
  msl_simdgroup& s = *t->sg;
  uint32_t bit = 1u << t->lane;
  s.fin = fin;
  s.site[t->lane] = site;
  s.wait_simd |= bit;
  s.ready &= ~bit;
  if (s.wait_simd == s.alive) {
    bool ok = true;
    for (uint32_t m = s.alive; m; m &= m - 1) ok &= s.site[__builtin_ctz(m)] == site;
    if (ok && s.alive != s.init && current_worker->o.strict) {
      char m[160];
      snprintf(m, sizeof m, "simdgroup operation after lanes %08x returned",
               s.init & ~s.alive);
      set_failure(m, site);
      switch_to_worker(&((Fiber*)t)->sp);
    }
    if (ok) {
      current_worker->stats.simd_ops++;
      s.last_mask = s.alive;
      if (fin) fin(s.slots[s.gen & 1], s.alive);
      s.gen++;
      s.ready = s.alive;
      s.wait_simd = 0;
      return s.alive;
    }
  }
  Fiber* me = (Fiber*)t;
  if (current_worker->o.seed == 0 && s.ready)
    switch_to_fiber(&me->sp, me + ((int)__builtin_ctz(s.ready) - (int)t->lane));
  else
    leave(me, (int)(&s - current_worker->sg.data()));
  msl_self = t;
  return s.last_mask;
}

extern "C" NOSAN void msl_barrier(int site, int scope_flags) {
  const int scope = scope_flags & 1, flags = scope_flags >> 8;
  (void)flags;
  msl_thread* t = msl_self;
  msl_simdgroup& s = *t->sg;
  Worker* w = current_worker;
  Fiber* me = (Fiber*)t;
#if MSL_TSAN
  if (flags) __tsan_release(scope ? (void*)w : (void*)&s);  // mem_none orders nothing
#endif
  if (scope == 0) {
    msl_rendezvous(site, nullptr);
#if MSL_TSAN
    if (flags) __tsan_acquire((void*)&s);
#endif
    return;
  }
  if (w->n_at_barrier && w->barrier_site != site && w->o.strict) {
    set_failure(
        "threads of one threadgroup wait at different threadgroup_barrier calls", site);
    switch_to_worker(&me->sp);
  }
  w->barrier_site = site;
  w->n_at_barrier++;
  s.wait_bar |= 1u << t->lane;
  s.ready &= ~(1u << t->lane);
  leave(me, (int)(&s - w->sg.data()));
  msl_self = t;
#if MSL_TSAN
  if (flags) __tsan_acquire((void*)w);
#endif
}

extern "C" NOSAN void* msl_tg_alloc(int id, size_t size) {
  Worker* w = current_worker;
  if (w->tg.size() <= (size_t)id) w->tg.resize(id + 1);
  auto& e = w->tg[id];
  if (!e.p) {
    fprintf(stderr, "tg var %d not declared\n", id);
    abort();
  }
  if (e.n < size) {
    fprintf(stderr, "tg var %d size\n", id);
    abort();
  }
  return e.p;
}
extern "C" NOSAN void msl_fail(const char* what, int site) {
  set_failure(what, site);
  Fiber* me = (Fiber*)msl_self;
  switch_to_worker(&me->sp);
}
