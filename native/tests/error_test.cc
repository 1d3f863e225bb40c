// What a failing function reports.

#include "error.h"

#include <gtest/gtest.h>

#include <cstring>
#include <new>
#include <string>

#include "utf8.h"

namespace molkv {
namespace {

constexpr size_t kRoom = sizeof(molkv_error::message) - 1;

std::string Reported(const std::string& message) {
  molkv_error error;
  std::memset(&error, 0x7f, sizeof(error));
  EXPECT_EQ(Report(&error, MOLKV_FORMAT, message.c_str()), MOLKV_FORMAT);
  EXPECT_EQ(error.status, MOLKV_FORMAT);
  return error.message;
}

TEST(Error, IsReportedWholeWhereThereIsRoom) {
  for (const size_t size : {size_t{0}, size_t{1}, kRoom - 1, kRoom}) {
    EXPECT_EQ(Reported(std::string(size, 'x')), std::string(size, 'x'));
  }
  EXPECT_EQ(Reported(std::string(kRoom + 1, 'x')), std::string(kRoom, 'x'));
}

TEST(Error, IsNeverCutInsideACharacter) {
  const std::string characters[] = {"\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\x99\x82"};
  for (const std::string& character : characters) {
    for (size_t before = kRoom - 5; before <= kRoom + 1; ++before) {
      const std::string message = std::string(before, 'x') + character + "yyyyyy";
      const std::string reported = Reported(message);
      EXPECT_EQ(ValidUtf8Prefix(reported), reported.size()) << before;
      EXPECT_EQ(message.compare(0, reported.size(), reported), 0) << before;
      EXPECT_GT(reported.size() + character.size(), kRoom) << before;
    }
  }
}

TEST(Error, IsCutSomewhereIfItIsNoUtf8) {
  const std::string message(kRoom + 10, '\x80');
  EXPECT_EQ(Reported(message), std::string(kRoom, '\x80'));
}

TEST(Error, IsOnlyAStatusWithoutARoomForIt) {
  EXPECT_EQ(Report(nullptr, MOLKV_IO, "unheard"), MOLKV_IO);
}

TEST(Error, TellsMemoryFromOtherReasons) {
  molkv_error error = {};
  EXPECT_EQ(Guard(&error, [] { throw std::bad_alloc(); }), MOLKV_OUT_OF_MEMORY);
  EXPECT_NE(std::strstr(error.message, "memory"), nullptr);
  EXPECT_EQ(Guard(&error, [] { throw Error(MOLKV_IO, "x: y"); }), MOLKV_IO);
  EXPECT_STREQ(error.message, "x: y");
  EXPECT_EQ(Guard(&error, [] {}), MOLKV_OK);
  EXPECT_STREQ(error.message, "x: y");
}

}  // namespace
}  // namespace molkv
