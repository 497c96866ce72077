#include "check.h"

int main() {
  test_json();
  test_bundle();
  test_gate();
  test_scaling();
  test_tail();
  std::printf("%d checks, %d failures\n", check::made, check::failures);
  return check::failures == 0 ? 0 : 1;
}
