// Positional reads go on until all bytes are there.

#include "file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "example_blob.h"

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::ExampleBlob;
using molkv_test::Folder;
using molkv_test::kPage;

// Gives at most 50 bytes a call, and says twice out of three times that a signal came first.
ssize_t Reluctant(int descriptor, void* target, size_t size, off_t position) {
  static int calls = 0;
  if (++calls % 3 != 0) {
    errno = EINTR;
    return -1;
  }
  return pread(descriptor, target, std::min<size_t>(size, 50), position);
}

TEST(FileTest, ShortAndInterruptedReadsAreContinued) {
  const Folder folder;
  const Bytes bytes = ExampleBlob::Small(4).File();
  const File file = File::Open(folder.Write("a", bytes));
  Bytes target(128);
  const ReadResult whole = ReadAt(file.descriptor(), target.data(), 128, kPage + 128, &Reluctant);
  EXPECT_EQ(whole.error, 0);
  EXPECT_EQ(whole.filled, 128u);
  EXPECT_EQ(whole.calls, 9u);
  EXPECT_EQ(std::memcmp(target.data(), bytes.data() + kPage + 128, 128), 0);
  const ReadResult cut =
      ReadAt(file.descriptor(), target.data(), 128, bytes.size() - 60, &Reluctant);
  EXPECT_EQ(cut.error, 0);
  EXPECT_EQ(cut.filled, 60u);
}

TEST(FileTest, ADeviceErrorIsHandedOn) {
  const auto failing = [](int, void*, size_t, off_t) -> ssize_t {
    errno = EIO;
    return -1;
  };
  uint8_t target[4];
  const ReadResult result = ReadAt(0, target, 4, 0, failing);
  EXPECT_EQ(result.error, EIO);
  EXPECT_EQ(result.filled, 0u);
}

}  // namespace
}  // namespace molkv
