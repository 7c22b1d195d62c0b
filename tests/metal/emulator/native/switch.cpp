// Going from one fiber to another: registers on the stack, then the other stack.
#include <cstring>

#include "scheduler.h"

#if defined(__x86_64__)
extern "C" void msl_switch_asm(void** save, void* load);
asm(R"(
.text
.globl msl_switch_asm
.type msl_switch_asm,@function
msl_switch_asm:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size msl_switch_asm,.-msl_switch_asm
.section .note.GNU-stack,"",@progbits
)");
#elif defined(__aarch64__)
extern "C" void msl_switch_asm(void** save, void* load);
asm(R"(
.text
.globl msl_switch_asm
msl_switch_asm:
  sub sp,sp,#160
  stp x19,x20,[sp,#0]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x9,sp
  str x9,[x0]
  mov sp,x1
  ldp x19,x20,[sp,#0]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
)");
#endif

NOSAN void switch_to_fiber(void** save, Fiber* to) {
  Worker* w = current_worker;
  w->stats.switches++;
  w->current = (uint32_t)(to - w->f.data());
  msl_self = &to->t;
#if MSL_TSAN
  __tsan_switch_to_fiber(to->tsan_fiber, 1 /* no sync */);
#endif
  msl_switch_asm(save, to->sp);
}
NOSAN void switch_to_worker(void** save) {
  Worker* w = current_worker;
#if MSL_TSAN
  __tsan_switch_to_fiber(w->sched_tsan_fiber, 1);
#endif
  msl_switch_asm(save, w->sched_sp);
}

extern "C" void msl_fiber_main();

#if defined(__x86_64__)
NOSAN void* initial_stack_pointer(char* stack) {
  uintptr_t top = ((uintptr_t)stack + STACK_BYTES) & ~(uintptr_t)15;
  void** p = (void**)top;
  *--p = nullptr;  // fake return address, keeps 16-byte alignment at entry
  *--p = (void*)&msl_fiber_main;
  for (int i = 0; i < 6; i++) *--p = nullptr;
  return p;
}
#else
NOSAN void* initial_stack_pointer(char* stack) {
  uintptr_t top = ((uintptr_t)stack + STACK_BYTES) & ~(uintptr_t)15;
  uint64_t* p = (uint64_t*)(top - 160);
  memset(p, 0, 160);
  p[11] = (uint64_t)&msl_fiber_main;  // x30
  return p;
}
#endif
