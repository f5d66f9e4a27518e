// The states of a pass of which only those of one segment of time are kept, and at the borders of
// segments the state before each: from there a segment is computed again when the way back comes to
// it.
//
// Segments are of whole blocks, so what is summed up in which order stays. Where there are very
// many, borders are kept of groups of segments, and of the segments of one group at a time.
#pragma once

#include <vector>

#include "engine/call.h"
#include "engine/scratch.h"

namespace bptt {

// How a pass is cut; all of it is one segment by default.
struct Cut {
  Index segment_steps = 0;   // at least so many steps a segment
  Index group_segments = 0;  // so many segments a group; 0: all are one group
};

template <class T>
class Segments {
 public:
  Segments(const Call<T>& call, const Cut& cut);

  Index count() const { return static_cast<Index>(begins_.size()) - 1; }
  Range blocks(Index segment) const;
  // The first segment of its group.
  Index first_of_group(Index segment) const { return segment / group_ * group_; }

  // Where the states of a segment are while it is the one that is kept, as an array of all steps,
  // of which no others may be touched.
  Record<T> record(Index segment);

  // Before a segment is computed: the state before it.
  void begin(Index segment);
  // After that: the state after it is kept, as the one before the next; and that of rows which end
  // in it is copied to `last`, whose parts may be null.
  void end(Index segment, T* last_s, T* last_c);

 private:
  Range steps(Index segment) const;
  T* border(Index segment);
  Index before(Index segment) const;

  const Problem<T>& problem_;
  std::vector<Index> begins_;       // the first block of each, and the end
  std::vector<Index> step_begins_;  // the first step of each, and the end
  Index group_;
  Index front_;  // rows before those of the segment: of the last step before it
  Buffer<T> y_, c_, saved_;
  Buffer<T> group_borders_, borders_;  // (groups, parts, B, H), (segments of a group, parts, B, H)
};

}  // namespace bptt
