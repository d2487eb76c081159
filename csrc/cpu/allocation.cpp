// operator new of this library alone (CMakeLists.txt binds it inside): as the standard one, except that the exception
// says how much was asked for. Every vector and array of the operators is covered. Memory comes from malloc, as in the
// standard library, so either side may free what the other allocated.
#include <cstdlib>

#include "../out_of_memory.h"

void* operator new(std::size_t bytes) {
  for (;;) {
    if (void* const memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
    const std::new_handler free_some = std::get_new_handler();
    if (free_some == nullptr) throw ise_fast::OutOfMemory(bytes);
    free_some();
  }
}

void* operator new[](std::size_t bytes) {
  return ::operator new(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
