// Work that is split between threads; for the sources of this library alone.
#ifndef SEARCHKIT_PARTS_H
#define SEARCHKIT_PARTS_H

#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "label_head.h"

// Calls part(0) to part(parts - 1), each returning an sk_status: the first by the caller, the others by threads of their
// own, or by the caller too where no more threads are to be had. Returns the first status that is not SK_OK.
template <typename Part>
int in_parts(int64_t parts, const Part &part) {
  if (parts == 1) return part(0);
  std::vector<int> statuses;
  std::vector<std::thread> helpers;
  try {
    statuses.assign(static_cast<size_t>(parts), SK_OK);
    helpers.reserve(static_cast<size_t>(parts));
  } catch (const std::bad_alloc &) {
    return SK_NO_MEMORY;
  }
  const auto kept = [&](int64_t index) { statuses[static_cast<size_t>(index)] = part(index); };
  int64_t alone = 1;
  try {
    for (; alone < parts; ++alone) helpers.emplace_back(kept, alone);
  } catch (const std::system_error &) {
  } catch (const std::bad_alloc &) {
  }
  kept(0);
  for (; alone < parts; ++alone) kept(alone);
  for (std::thread &helper : helpers) helper.join();
  for (const int each : statuses)
    if (each != SK_OK) return each;
  return SK_OK;
}

#endif
