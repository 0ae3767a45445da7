// Where a call runs, and its scratch memory there. The last block of a launch to finish finds out by counting, in
// memory that has to be zero when the launch begins and is zero again when it ends; and it reads what all blocks have
// left behind the counters. Launches on one stream follow one another and share a workspace. Launches that may overlap
// never do: two of them would count together, and each would add up what the other left. geco_ext/backends/workspace.py
// keeps one for each stream.
#pragma once

#include <cstdint>
#include <functional>

namespace geco::cuda {

constexpr std::int64_t kTickets = 1024;  // of 32 bits, at the front
constexpr std::int64_t kTicketWords = kTickets / 2;

struct Place {
  int device;
  void* stream;
  std::function<double*()> workspace;  // of the stream; asked for by those calls that need one
};

inline unsigned* tickets_of(double* workspace) { return reinterpret_cast<unsigned*>(workspace); }
inline double* numbers_of(double* workspace) { return workspace + kTicketWords; }

}  // namespace geco::cuda
