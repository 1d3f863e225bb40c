// What a blob can be opened from, and what is refused.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "blob_reading.h"
#include "example_blob.h"
#include "molkv/molkv.h"

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::ExampleBlob;
using molkv_test::ExpectRows;
using molkv_test::Folder;
using molkv_test::OpenOrFail;
using molkv_test::Options;
using molkv_test::Read;
using molkv_test::StatsOf;

// A file inside another one.
Bytes Enclosed(size_t before, const Bytes& file, size_t after) {
  Bytes package(before + file.size() + after, 'x');
  std::copy(file.begin(), file.end(), package.begin() + static_cast<ptrdiff_t>(before));
  return package;
}

TEST(BlobOpenTest, ABlobInsideALargerFileIsReadThroughADescriptor) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(11);
  const Bytes file = example.File();
  const Bytes package = Enclosed(1001, file, 77);
  const int descriptor = open(folder.Write("a.apk", package).c_str(), O_RDONLY);
  molkv_blob* blob = nullptr;
  molkv_error error{};
  const auto open_at = [&](uint64_t offset, uint64_t length) {
    return molkv_blob_open_descriptor(descriptor, offset, length, nullptr, &blob, &error);
  };
  struct Case {
    uint64_t offset;
    uint64_t length;
    const char* field;
  };
  const std::string name = "descriptor " + std::to_string(descriptor) + ": ";
  for (const Case& wrong : std::vector<Case>{{1001, file.size() + 1, "file length"},
                                             {1001, file.size() - 1, "file length"},
                                             {1001, file.size() + 78, "length"},
                                             {1u << 30, 0, "offset"},
                                             {UINT64_MAX, 1, "offset"},
                                             {1001, UINT64_MAX, "length"},
                                             {0, file.size(), "magic"}}) {
    EXPECT_EQ(open_at(wrong.offset, wrong.length), MOLKV_FORMAT);
    EXPECT_EQ(std::string(error.message).find(name + wrong.field + " is "), 0u) << error.message;
    EXPECT_EQ(blob, nullptr);
  }
  ASSERT_EQ(open_at(1001, file.size()), MOLKV_OK) << error.message;
  close(descriptor);
  ExpectRows(example, {10, 0}, Read(blob, {10, 0}));
  molkv_blob_close(blob);
  blob = nullptr;
  EXPECT_EQ(open_at(1001, file.size()), MOLKV_IO) << "a closed descriptor";
  EXPECT_EQ(blob, nullptr);
}

TEST(BlobOpenTest, ShardsThatAreNotOneWholeSetAreRefused) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(12);
  std::vector<std::string> paths;
  for (const Bytes& file : example.Shards(3)) {
    paths.push_back(folder.Write("shard-" + std::to_string(paths.size()), file));
  }
  const auto damaged = [&](const std::string& name, size_t offset, uint8_t value) {
    Bytes file = example.Shards(3)[1];
    file[offset] = value;
    molkv_test::SealHeader(file);
    return folder.Write(name, file);
  };
  // Shard 1 begins a row later, and ends a row later, than it should.
  Bytes moved = example.File(5, 4, 1, 3);
  Bytes overlapping = example.File(3, 4, 1, 3);
  // Its rows are as long, but of another shape.
  ExampleBlob turned = example;
  turned.experts = 1;
  turned.value_size = 20;
  turned.Fill(12, 1);
  ASSERT_EQ(turned.row_stride, example.row_stride);
  struct Case {
    std::vector<std::string> files;
    const char* message;
  };
  const std::vector<Case> cases = {
      {{paths[0]}, "shard-0: shard_count is 3, but 1 of them were given"},
      {{paths[0], paths[2]}, "shard_count is 3, but 2 of them were given"},
      {{paths[0], paths[1], paths[1]}, "shard-1: shard_index is 1, but shard 2 is missing"},
      {{paths[0], paths[1], paths[2], paths[2]}, "shard_count is 3, but 4 of them were given"},
      {{paths[0], damaged("identity", 112, 0), paths[2]}, "identity: identity is 00c9cacb"},
      {{paths[0], damaged("vocabulary", 40, 13), paths[2]}, "vocabulary: vocabulary_size is 13"},
      {{paths[0], damaged("count", 68, 4), paths[2]}, "count: shard_count is 4"},
      {{paths[0], folder.Write("moved", moved), paths[2]},
       "moved: first_row is 5, but the shard before ends at 4"},
      {{paths[0], folder.Write("overlapping", overlapping), paths[2]},
       "overlapping: first_row is 3, but the shard before ends at 4"},
      {{paths[0], folder.Write("turned", turned.Shards(3)[1]), paths[2]}, "turned: experts is 1"},
  };
  for (const Case& set : cases) {
    std::vector<const char*> names;
    for (const std::string& path : set.files) {
      names.push_back(path.c_str());
    }
    molkv_blob* blob = nullptr;
    molkv_error error{};
    EXPECT_EQ(molkv_blob_open(names.data(), names.size(), nullptr, &blob, &error), MOLKV_FORMAT);
    EXPECT_NE(std::string(error.message).find(set.message), std::string::npos)
        << error.message << "\nwanted: " << set.message;
    EXPECT_EQ(blob, nullptr);
  }
}

TEST(BlobOpenTest, WhatIsNotARegularFileIsRefusedWithoutWaiting) {
  const Folder folder;
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& [path, status, text] :
       std::vector<std::tuple<std::string, molkv_status, std::string>>{
           {pipe, MOLKV_FORMAT, "file type is 'p'"},
           {folder.path(), MOLKV_FORMAT, "file type is 'd'"},
           {"/dev/null", MOLKV_FORMAT, "file type is 'c'"},
           {folder.path() + "/none", MOLKV_IO, "cannot be opened: No such file"}}) {
    const char* name = path.c_str();
    molkv_blob* blob = nullptr;
    molkv_error error{};
    EXPECT_EQ(molkv_blob_open(&name, 1, nullptr, &blob, &error), status);
    EXPECT_EQ(std::string(error.message).find(path + ": "), 0u) << error.message;
    EXPECT_NE(std::string(error.message).find(text), std::string::npos) << error.message;
  }
}

TEST(BlobOpenTest, OptionsThatCannotWorkAreRefused) {
  const Folder folder;
  const std::string path = folder.Write("a", ExampleBlob::Small(4).File());
  const char* name = path.c_str();
  const auto status_of = [&](const std::function<void(molkv_blob_options&)>& change) {
    molkv_blob_options options = Options();
    change(options);
    molkv_blob* blob = nullptr;
    const molkv_status status = molkv_blob_open(&name, 1, &options, &blob, nullptr);
    molkv_blob_close(blob);
    return status;
  };
  EXPECT_EQ(status_of([](auto&) {}), MOLKV_OK);
  EXPECT_EQ(status_of([](auto& options) { options.readers = 64; }), MOLKV_OK);
  EXPECT_EQ(status_of([](auto& options) { options.readers = 65; }), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(status_of([](auto& options) { options.struct_size = 0; }), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(status_of([](auto& options) { options.skip_verify = 2; }), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(status_of([](auto& options) { options.direct_io = 2; }), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(status_of([](auto& options) { options.mode = 2; }), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(status_of([](auto& options) { options.cache_bytes = 128; }), MOLKV_INVALID_ARGUMENT);
  // A newer caller's struct is accepted while what we do not know of it is zero.
  struct Newer {
    molkv_blob_options options;
    uint64_t added;
  } newer{Options(), 0};
  newer.options.struct_size = sizeof(newer);
  molkv_blob* blob = nullptr;
  EXPECT_EQ(molkv_blob_open(&name, 1, &newer.options, &blob, nullptr), MOLKV_OK);
  molkv_blob_close(blob);
  newer.added = 1;
  EXPECT_EQ(molkv_blob_open(&name, 1, &newer.options, &blob, nullptr), MOLKV_UNSUPPORTED);
}

TEST(BlobOpenTest, NullPointersAreRefused) {
  const Folder folder;
  const std::string path = folder.Write("a", ExampleBlob::Small(4).File());
  const char* names[] = {path.c_str(), nullptr};
  molkv_blob* blob = nullptr;
  EXPECT_EQ(molkv_blob_open(nullptr, 1, nullptr, &blob, nullptr), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_blob_open(names, 0, nullptr, &blob, nullptr), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_blob_open(names, 2, nullptr, &blob, nullptr), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_blob_open(names, 1, nullptr, nullptr, nullptr), MOLKV_INVALID_ARGUMENT);
  blob = OpenOrFail({path});
  size_t distinct = 9;
  EXPECT_EQ(molkv_blob_read(blob, nullptr, 1, nullptr, nullptr, &distinct, nullptr),
            MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(distinct, 9u);
  EXPECT_EQ(molkv_blob_read(blob, nullptr, 0, nullptr, nullptr, &distinct, nullptr), MOLKV_OK);
  EXPECT_EQ(distinct, 0u);
  molkv_blob_close(blob);
  molkv_blob_close(nullptr);
}

TEST(BlobOpenTest, DirectReadsGiveTheSameRowsOrSayWhyNot) {
  const Folder folder;
  molkv_blob_options options = Options();
  options.direct_io = 1;
  const std::string small = folder.Write("small", ExampleBlob::Small(4).File());
  const char* name = small.c_str();
  molkv_blob* blob = nullptr;
  molkv_error error{};
  EXPECT_EQ(molkv_blob_open(&name, 1, &options, &blob, &error), MOLKV_UNSUPPORTED);
  EXPECT_NE(std::string(error.message).find("row_stride is 128, but direct I/O needs"),
            std::string::npos)
      << error.message;
  const ExampleBlob example = ExampleBlob::Large(9);
  const Bytes file = example.File();
  const Bytes package = Enclosed(100, file, 0);
  const int inside = open(folder.Write("package", package).c_str(), O_RDONLY);
  EXPECT_EQ(molkv_blob_open_descriptor(inside, 100, file.size(), &options, &blob, &error),
            MOLKV_UNSUPPORTED);
  EXPECT_NE(std::string(error.message).find("offset is 100, but"), std::string::npos);
  close(inside);
  const std::string path = folder.Write("large", file);
  const int descriptor = open(path.c_str(), O_RDONLY);
  const int flags = fcntl(descriptor, F_GETFL);
  name = path.c_str();
  for (const bool by_path : {true, false}) {
    blob = nullptr;
    const molkv_status status =
        by_path ? molkv_blob_open(&name, 1, &options, &blob, &error)
                : molkv_blob_open_descriptor(descriptor, 0, file.size(), &options, &blob, &error);
    if (status == MOLKV_OK) {
      ExpectRows(example, {8, 0, 8, 3}, Read(blob, {8, 0, 8, 3}));
      EXPECT_EQ(StatsOf(blob).reads, 3u);
    } else {
      // Some file systems, such as those in memory, have no direct I/O.
      EXPECT_EQ(status, MOLKV_UNSUPPORTED);
      EXPECT_NE(std::string(error.message).find("direct I/O is not possible"), std::string::npos);
    }
    molkv_blob_close(blob);
  }
  EXPECT_EQ(fcntl(descriptor, F_GETFL), flags) << "the caller's descriptor stays as it was";
  close(descriptor);
}

TEST(BlobOpenTest, OpeningAndClosingLeavesNoDescriptor) {
  const Folder folder;
  Bytes damaged = ExampleBlob::Small(4).File();
  damaged.pop_back();
  const std::string good = folder.Write("good", ExampleBlob::Small(4).File());
  const std::string bad = folder.Write("bad", damaged);
  const int before = open("/dev/null", O_RDONLY);
  close(before);
  for (int repeat = 0; repeat < 3; ++repeat) {
    molkv_blob_close(OpenOrFail({good}));
    const char* names[] = {good.c_str(), bad.c_str()};
    molkv_blob* blob = nullptr;
    EXPECT_EQ(molkv_blob_open(names, 2, nullptr, &blob, nullptr), MOLKV_FORMAT);
  }
  const int after = open("/dev/null", O_RDONLY);
  close(after);
  EXPECT_EQ(after, before) << "the lowest free descriptor is the same";
}

}  // namespace
}  // namespace molkv
