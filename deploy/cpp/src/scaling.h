// Pictures and label maps at another size, bit for bit as in the Python package: pictures by its native pre-processing,
// labels by nearest neighbour as Pillow takes it.
#ifndef SKR_SRC_SCALING_H
#define SKR_SRC_SCALING_H

#include <cstdint>
#include <vector>

#include "contract.h"
#include "searchkit/runtime.h"

namespace skr {

// Writes a model's input without gaps, uint8 `model.height` x `model.width` x 3: the picture at the size `place` in the
// top left corner, `pad` beside it. Tables and buffers belong to the calling thread and are made anew when a size changes;
// else nothing is allocated. Sides are in range. Throws `Failure`, or std::bad_alloc.
void scale_picture(const skr_picture &picture, std::uint8_t *input, Size model, Size place, const Colour &pad);

// Bytes, nearest neighbour. The tables are made once for a pair of sizes; `run` allocates nothing.
class LabelScaler {
 public:
  LabelScaler(Size from, Size to);

  void run(const std::uint8_t *from, std::int64_t from_row, std::uint8_t *to, std::int64_t to_row) const;

 private:
  std::vector<std::int32_t> columns_, rows_;
};

// Where a picture lies in the model's input, from the top left corner.
Size inside(bool letterbox, Size picture, Size model);

}  // namespace skr
#endif
