// swapcontext makes a system call (it saves the signal mask), which costs ten times the switch itself. On x86-64 and
// AArch64 a few instructions save what the calling convention says a callee must keep; elsewhere ucontext does.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#define SIMT_UCONTEXT 1  // may also be defined by hand, to try it elsewhere
#endif
#if defined(SIMT_UCONTEXT)
#include <ucontext.h>
#elif defined(__x86_64__)
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");
#else
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, %function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size simt_switch, .-simt_switch
)");
#endif

namespace simt {
namespace {

constexpr std::size_t kGuardBytes = 64 * 1024;  // a multiple of every page size

#ifdef SIMT_UCONTEXT
ucontext_t* resume_point(Context& context) {
  if (!context.resume_at) context.resume_at = new ucontext_t;  // one a fibre, kept as long as its stack
  return static_cast<ucontext_t*>(context.resume_at);
}
#endif

}  // namespace

char* new_stack() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("simt: no memory for the stack of a fibre");
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

void prepare(Context& context, char* stack, void (*entry)()) {
  context.stack_bottom = stack;
  context.stack_size = kStackBytes;
  context.fake_stack = nullptr;
#ifdef SIMT_UCONTEXT
  ucontext_t* point = resume_point(context);
  getcontext(point);
  point->uc_stack.ss_sp = stack;
  point->uc_stack.ss_size = kStackBytes;
  point->uc_link = nullptr;
  makecontext(point, entry, 0);
#else
  // The picture that simt_switch expects to pop: saved registers, then the address it returns to.
  auto* top = reinterpret_cast<std::uintptr_t*>(stack + kStackBytes);
#if defined(__x86_64__)
  top[-1] = 0;  // the return address of `entry`, which also aligns the stack as a call would
  top[-2] = reinterpret_cast<std::uintptr_t>(entry);
  for (int i = 3; i <= 8; ++i) top[-i] = 0;
  context.resume_at = top - 8;
#else
  for (int i = 1; i <= 20; ++i) top[-i] = 0;
  top[-20 + 11] = reinterpret_cast<std::uintptr_t>(entry);  // x30, the link register
  context.resume_at = top - 20;
#endif
#endif
}

void switch_context(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_bottom, to.stack_size);
#endif
#ifdef SIMT_UCONTEXT
  swapcontext(resume_point(from), resume_point(to));
#else
  simt_switch(&from.resume_at, to.resume_at);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void entered([[maybe_unused]] Context& host) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &host.stack_bottom, &host.stack_size);
#endif
}

void forget_frames([[maybe_unused]] char* stack) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(stack, kStackBytes);
#endif
}

}  // namespace simt
