#include "../interrupt.h"
#include "allocate.h"

namespace ise_fast {

MemoryHook memory_hook = nullptr;

}  // namespace ise_fast

// ise_fast/_library.py hands over the addresses of functions of ise_fast._C.
extern "C" __attribute__((visibility("default"))) void ise_fast_set_memory_hook(ise_fast::MemoryHook hook) {
  ise_fast::memory_hook = hook;
}
extern "C" __attribute__((visibility("default"))) void ise_fast_set_interrupt_check(ise_fast::InterruptCheck hook) {
  ise_fast::interrupt_check = hook;  // this library's own
}
