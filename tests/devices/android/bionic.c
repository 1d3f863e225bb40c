/* What Android's C library has and this system's lacks, so that the ONNX Runtime of the official
 * Android package runs in tests on glibc. It stands in for libc.so, libm.so, libdl.so, liblog.so
 * and libandroid.so. bionic_library.py makes the copies that use it, in which functions that mean
 * something else here carry a capital letter in front: "fputs" becomes "Fputs". */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

int* __errno(void) { return __errno_location(); }
char* __gnu_strerror_r(int code, char* text, size_t size) { return strerror_r(code, text, size); }
void android_set_abort_message(const char* message) { fprintf(stderr, "abort: %s\n", message); }
int __FD_ISSET_chk(int fd, const fd_set* set, size_t size) {
  (void)size;
  return FD_ISSET(fd, set);
}
void __FD_SET_chk(int fd, fd_set* set, size_t size) {
  (void)size;
  FD_SET(fd, set);
}
char* __strchr_chk(const char* text, int character, size_t size) {
  (void)size;
  return strchr(text, character);
}
size_t __strlen_chk(const char* text, size_t size) {
  (void)size;
  return strlen(text);
}
int __system_property_get(const char* name, char* value) {
  (void)name;
  value[0] = 0;
  return 0;
}

/* The log: ONNX Runtime is told to log nothing, so what comes is worth seeing. */
int __android_log_vprint(int priority, const char* tag, const char* format, va_list values) {
  fprintf(stderr, "%d %s: ", priority, tag);
  vfprintf(stderr, format, values);
  return fputc('\n', stderr);
}
int __android_log_print(int priority, const char* tag, const char* format, ...) {
  va_list values;
  va_start(values, format);
  const int size = __android_log_vprint(priority, tag, format, values);
  va_end(values);
  return size;
}
int __android_log_write(int priority, const char* tag, const char* text) {
  return __android_log_print(priority, tag, "%s", text);
}

/* Standard streams lie in an array there, in elements of 152 bytes. */
char __sF[3 * 152];

static FILE* stream(FILE* file) {
  const char* place = (const char*)file;
  if (place < __sF || place >= __sF + sizeof(__sF)) return file;
  const long index = (place - __sF) / 152;
  return index == 0 ? stdin : index == 1 ? stdout : stderr;
}

int Vfprintf(FILE* file, const char* format, va_list values) {
  return vfprintf(stream(file), format, values);
}
int Fprintf(FILE* file, const char* format, ...) {
  va_list values;
  va_start(values, format);
  const int size = Vfprintf(file, format, values);
  va_end(values);
  return size;
}
size_t Fwrite(const void* data, size_t size, size_t count, FILE* file) {
  return fwrite(data, size, count, stream(file));
}
int Fflush(FILE* file) { return fflush(stream(file)); }
int Fputc(int character, FILE* file) { return fputc(character, stream(file)); }
int Fputs(const char* text, FILE* file) { return fputs(text, stream(file)); }
int Fileno(FILE* file) { return fileno(stream(file)); }

/* sysconf's numbers are bionic's. */
long Sysconf(int name) {
  if (name >= 0x8d && name <= 0x9b) return 0; /* sizes of the processor's caches: not known */
  switch (name) {
    case 0x06:
      return sysconf(_SC_CLK_TCK);
    case 0x27:
    case 0x28:
      return sysconf(_SC_PAGESIZE);
    case 0x60:
      return sysconf(_SC_NPROCESSORS_CONF);
    case 0x61:
      return sysconf(_SC_NPROCESSORS_ONLN);
    case 0x62:
      return sysconf(_SC_PHYS_PAGES);
    case 0x63:
      return sysconf(_SC_AVPHYS_PAGES);
    default:
      fprintf(stderr, "sysconf(%#x) of bionic is not known here\n", (unsigned)name);
      abort();
  }
}

/* Structures that are larger here than there. Only what ONNX Runtime does with them is kept. */
int Pthread_attr_init(size_t* stack_size) {
  *stack_size = 0;
  return 0;
}
int Pthread_attr_setstacksize(size_t* stack_size, size_t size) {
  *stack_size = size;
  return 0;
}
int Pthread_create(pthread_t* thread, const size_t* stack_size, void* (*start)(void*),
                   void* argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (stack_size != NULL && *stack_size != 0) pthread_attr_setstacksize(&attributes, *stack_size);
  const int result = pthread_create(thread, &attributes, start, argument);
  pthread_attr_destroy(&attributes);
  return result;
}
enum { kMutexBytes = 40, kSignalSetBytes = 8 };
int Pthread_mutex_init(void* mutex, const pthread_mutexattr_t* attributes) {
  pthread_mutex_t made;
  const int result = pthread_mutex_init(&made, attributes);
  memcpy(mutex, &made, kMutexBytes);
  return result;
}
int Sigfillset(void* set) {
  memset(set, 0xff, kSignalSetBytes);
  return 0;
}
int Pthread_sigmask(int how, const void* set, void* old) {
  sigset_t now, before;
  sigemptyset(&now);
  if (set != NULL) memcpy(&now, set, kSignalSetBytes);
  const int result = pthread_sigmask(how, set == NULL ? NULL : &now, &before);
  if (old != NULL) memcpy(old, &before, kSignalSetBytes);
  return result;
}

/* Names without a version mean a function's oldest version. Of these, glibc for x86-64 has kept one
 * that does less. */
char* Realpath(const char* path, char* resolved) { return realpath(path, resolved); }
int Pthread_cond_broadcast(pthread_cond_t* condition) { return pthread_cond_broadcast(condition); }
int Pthread_cond_destroy(pthread_cond_t* condition) { return pthread_cond_destroy(condition); }
int Pthread_cond_signal(pthread_cond_t* condition) { return pthread_cond_signal(condition); }
int Pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  return pthread_cond_wait(condition, mutex);
}
int Pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                           const struct timespec* until) {
  return pthread_cond_timedwait(condition, mutex, until);
}
