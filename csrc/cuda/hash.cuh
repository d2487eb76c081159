// An open-addressing hash table of 32-bit keys, in shared or global memory, filled by many threads at once.
#pragma once

#include <cstdint>

#include "launch.h"

namespace ise_fast {

// Slots are filled in the order of arrival, so *where* a key lies changes from run to run; *which* keys are in the
// table does not. Sort by key whatever leaves the table in slot order. Values live in arrays of the caller, indexed by
// slot.
class HashTable {
public:
  static constexpr uint32_t kEmpty = 0xffffffffu;  // not a key
  static constexpr uint32_t kFull = 0xffffffffu;   // not a slot
  // A table this crowded counts as full: the way to a free slot grows without bound, and a table that has none would be
  // searched from end to end for every further key.
  static constexpr uint32_t kMostTries = 32;

  // `keys` has `slots` entries, a power of two, all kEmpty. Who knows that all keys fit may try all slots.
  __device__ HashTable(uint32_t* keys, uint32_t slots, uint32_t most_tries = kMostTries)
      : keys_(keys), mask_(slots - 1), most_tries_(most_tries < slots ? most_tries : slots) {}

  // The slot of `key`, which is added if need be; kFull when there is none near. Safe against the same call by others.
  __device__ uint32_t insert(uint32_t key) {
    bool added;
    return insert(key, added);
  }
  // Of all that insert the same key, one adds it.
  __device__ uint32_t insert(uint32_t key, bool& added) {
    uint32_t slot = first_slot(key);
    added = false;
    for (uint32_t tries = 0; tries < most_tries_; ++tries) {
      uint32_t found = load_relaxed(keys_ + slot);
      if (found == key) return slot;
      if (found == kEmpty) {
        found = atomicCAS(keys_ + slot, kEmpty, key);
        added = found == kEmpty;
        if (added || found == key) return slot;
      }
      slot = (slot + 1) & mask_;
    }
    return kFull;
  }

  // The slot of `key`, kFull if it is not there. Not while others insert.
  __device__ uint32_t find(uint32_t key) const {
    uint32_t slot = first_slot(key);
    for (uint32_t tries = 0; tries < most_tries_; ++tries) {
      if (keys_[slot] == key) return slot;
      if (keys_[slot] == kEmpty) return kFull;
      slot = (slot + 1) & mask_;
    }
    return kFull;
  }

private:
  // Multiplication by 2^32 / golden ratio spreads runs of consecutive keys; the high bits are the mixed ones.
  __device__ uint32_t first_slot(uint32_t key) const { return (key * 2654435769u >> 12) & mask_; }

  uint32_t* keys_;
  uint32_t mask_, most_tries_;
};

}  // namespace ise_fast
