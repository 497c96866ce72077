// A loaded bundle, and the buffers of one stream of pictures.
#ifndef SKR_SRC_SEGMENTER_H
#define SKR_SRC_SEGMENTER_H

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "contract.h"
#include "scaling.h"
#include "session.h"

namespace skr {

// Never changes after it was made.
struct Model {
  // Verifies, then loads. Throws `Failure`.
  Model(const std::string &path, const skr_options &options);

  Contract contract;
  std::unique_ptr<const Session> session;
};

class Segmenter {
 public:
  explicit Segmenter(std::shared_ptr<const Model> model);

  // Throws `Failure`.
  void run(const skr_picture &picture, const skr_label_map &labels);

  skr_times times() const { return times_; }

 private:
  // All that depends on the picture's size.
  struct Fitting {
    Fitting(const Contract &contract, Size picture_size);
    Size picture;
    Size place;  // of the picture in the model's input, from the top left corner
    LabelScaler back;
  };

  // The picture at the model's size: where it lies, or in `input_`.
  const OrtValue *fit(const skr_picture &picture);
  void restore(const skr_label_map &labels);

  std::shared_ptr<const Model> model_;
  ByteTensor input_, output_;
  SeenTensors pictures_;  // those of the model's own size
  std::optional<Fitting> fitting_;  // of the last picture that had another size than the model
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  skr_times times_{};
};

}  // namespace skr
#endif
