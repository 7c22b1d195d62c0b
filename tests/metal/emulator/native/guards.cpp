// Buffers that end at an unmapped page, so that an access outside is noticed.
#include "guards.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "scheduler.h"

namespace {
constexpr size_t PAGE_BYTES = 16384;     // a multiple of any system's page
constexpr size_t GUARD_BYTES = 2 << 20;  // on either side

struct Guard {
  char* map;
  size_t map_bytes;
  char* start;
  size_t n_bytes;
  std::string name;
};
std::vector<Guard> guards;
char message[256];
struct sigaction previous;

NOSAN void report() {
  set_failure(message, 0);
  switch_to_worker(&((Fiber*)msl_self)->sp);
  abort();
}

void on_segfault(int, siginfo_t* signal, void* context) {
  char* address = (char*)signal->si_addr;
  ucontext_t* u = (ucontext_t*)context;
#if defined(__x86_64__)
  char* stack = (char*)u->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__) && defined(__linux__)
  char* stack = (char*)u->uc_mcontext.sp;
#else
  char* stack = nullptr;
#endif
  const Worker* w = current_worker;
  // The kernel's own doing, not the runtime's: it is on a fiber's stack.
  if (w && stack >= w->arena && stack < w->arena + w->arena_n) {
    snprintf(message, sizeof message, "access far outside of every buffer");
    for (Guard& g : guards) {
      if (address < g.map || address >= g.map + g.map_bytes) continue;
      const long offset = (long)(address - g.start);
      const bool is_inside = offset >= 0 && (size_t)offset < g.n_bytes;
      snprintf(
          message, sizeof message, "%s '%s': byte offset %ld, size %zu",
          is_inside ? "write to read-only buffer" : "out-of-bounds access to buffer",
          g.name.c_str(), offset, g.n_bytes);
    }
    // The handler returns into `report`, on the fiber's stack.
#if defined(__x86_64__)
    u->uc_mcontext.gregs[REG_RSP] =
        ((u->uc_mcontext.gregs[REG_RSP] - 256) & ~15ll) - 8;
    u->uc_mcontext.gregs[REG_RIP] = (long long)&report;
#elif defined(__aarch64__) && defined(__linux__)
    u->uc_mcontext.sp = (u->uc_mcontext.sp - 256) & ~15ull;
    u->uc_mcontext.pc = (unsigned long long)&report;
#endif
    return;
  }
  sigaction(SIGSEGV, &previous, nullptr);
}
}  // namespace

void watch_guards() {
  if (guards.empty()) return;
  struct sigaction action{};
  action.sa_sigaction = on_segfault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous);
}

void unwatch_guards() {
  if (!guards.empty()) sigaction(SIGSEGV, &previous, nullptr);
}

extern "C" MSL_API void* msl_guard_alloc(const char* name, size_t n_bytes) {
  // Buffers are 16-byte aligned, as Metal's are: an overrun within those is unseen.
  const size_t aligned = (n_bytes + 15) / 16 * 16;
  const size_t body = (aligned + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
  const size_t span = body + 2 * GUARD_BYTES;
  char* map = (char*)mmap(nullptr, span, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  mprotect(map + GUARD_BYTES, body, PROT_READ | PROT_WRITE);
  guards.push_back({map, span, map + GUARD_BYTES + body - aligned, n_bytes, name});
  return guards.back().start;
}

extern "C" MSL_API void msl_guard_readonly(void* start) {
  for (Guard& g : guards)
    if (g.start == start)
      mprotect(g.map + GUARD_BYTES, g.map_bytes - 2 * GUARD_BYTES, PROT_READ);
}

extern "C" MSL_API void msl_guard_free_all() {
  for (Guard& g : guards) munmap(g.map, g.map_bytes);
  guards.clear();
}
