// A small, fixed number of threads that read at once.

#ifndef MOLKV_SRC_READER_POOL_H_
#define MOLKV_SRC_READER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace molkv {

// Threads start when work first needs them, so a blob whose rows are read one by one has none. All
// functions may be called from any thread, those of the pool included.
class ReaderPool {
 public:
  explicit ReaderPool(uint32_t readers) : readers_(readers) {}
  ReaderPool(const ReaderPool&) = delete;
  ReaderPool& operator=(const ReaderPool&) = delete;

  // Waits for the tasks that were started.
  ~ReaderPool();

  // Calls work(0) to work(count - 1), up to `readers` at once and starting in this order; the
  // calling thread does its share. One item, or one reader, never leaves the calling thread. Throws
  // what the first item that fails throws, as a molkv::Error; items after that may be left out.
  void Run(size_t count, const std::function<void(size_t)>& work);

  // Hands a task, which must not throw, to a thread of the pool and returns at once. False if
  // there is no thread and the system gives none; the task is then never called.
  bool Start(std::function<void()> task);

  // Threads that have been started.
  size_t threads() const;

 private:
  void Serve();
  void SpawnThread();  // needs mutex_ to be held

  const uint32_t readers_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace molkv

#endif  // MOLKV_SRC_READER_POOL_H_
