// What a library for Android expects of its C library (bionic), on top of this machine's.
//
// Functions that mean the same in both are trampolines, which bionic.py writes. Here are those that differ:
// in their name, in a constant, or in a checked variant that only bionic has.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT(name) __asm__(".symver bionic_" #name ", " #name "@LIBC")

EXPORT(stderr);
EXPORT(stdout);
EXPORT(__sF);
FILE* bionic_stderr;
FILE* bionic_stdout;
char bionic___sF[3][152];

static FILE* stream(FILE* file) {
  for (int i = 0; i < 3; i++) {
    if ((char*)file == bionic___sF[i]) return i == 0 ? stdin : i == 1 ? stdout : stderr;
  }
  return file;
}

EXPORT(fprintf);
int bionic_fprintf(FILE* file, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int written = vfprintf(stream(file), format, arguments);
  va_end(arguments);
  return written;
}
EXPORT(vfprintf);
int bionic_vfprintf(FILE* file, const char* format, va_list arguments) {
  return vfprintf(stream(file), format, arguments);
}
EXPORT(fputs);
int bionic_fputs(const char* text, FILE* file) { return fputs(text, stream(file)); }
EXPORT(fputc);
int bionic_fputc(int c, FILE* file) { return fputc(c, stream(file)); }
EXPORT(fwrite);
size_t bionic_fwrite(const void* data, size_t size, size_t count, FILE* file) {
  return fwrite(data, size, count, stream(file));
}
EXPORT(fflush);
int bionic_fflush(FILE* file) { return fflush(file ? stream(file) : NULL); }

EXPORT(__errno);
int* bionic___errno(void) { return &errno; }
EXPORT(__assert2);
void bionic___assert2(const char* file, int line, const char* function, const char* text) {
  fprintf(stderr, "error: %s:%d: %s: %s\n", file, line, function, text);
  abort();
}
EXPORT(android_set_abort_message);
void bionic_android_set_abort_message(const char* text) { fprintf(stderr, "error: %s\n", text); }
EXPORT(__gnu_strerror_r);
char* bionic___gnu_strerror_r(int number, char* text, size_t size) { return strerror_r(number, text, size); }
EXPORT(strerror_r);
extern int __xpg_strerror_r(int, char*, size_t);
int bionic_strerror_r(int number, char* text, size_t size) { return __xpg_strerror_r(number, text, size); }
EXPORT(__strlen_chk);
size_t bionic___strlen_chk(const char* text, size_t size) { (void)size; return strlen(text); }
EXPORT(__strchr_chk);
char* bionic___strchr_chk(const char* text, int c, size_t size) { (void)size; return strchr(text, c); }
EXPORT(__strrchr_chk);
char* bionic___strrchr_chk(const char* text, int c, size_t size) { (void)size; return strrchr(text, c); }
__asm__(".symver bionic___write_chk, __write_chk@LIBC_N");
ssize_t bionic___write_chk(int file, const void* data, size_t count, size_t size) {
  (void)size;
  return write(file, data, count);
}
EXPORT(__system_property_get);
int bionic___system_property_get(const char* name, char* value) { (void)name; value[0] = 0; return 0; }
EXPORT(__register_atfork);
int bionic___register_atfork(void) { return 0; }
EXPORT(sysconf);
long bionic_sysconf(int name) {
  switch (name) {
    case 39: case 40: return sysconf(_SC_PAGESIZE);
    case 96: return sysconf(_SC_NPROCESSORS_CONF);
    case 97: return sysconf(_SC_NPROCESSORS_ONLN);
    case 98: return sysconf(_SC_PHYS_PAGES);
    case 99: return sysconf(_SC_AVPHYS_PAGES);
    default: errno = EINVAL; return -1;
  }
}
EXPORT(dlopen);
void* bionic_dlopen(const char* name, int flags) {
  return dlopen(name && !strcmp(name, "libvulkan.so") ? "libvulkan.so.1" : name, flags);
}

int __android_log_write(int priority, const char* tag, const char* text) {
  return priority < 6 ? 0 : fprintf(stderr, "error: %s: %s\n", tag, text);
}
int __android_log_vprint(int priority, const char* tag, const char* format, va_list arguments) {
  if (priority < 6) return 0;
  fprintf(stderr, "error: %s: ", tag);
  vfprintf(stderr, format, arguments);
  return fputc('\n', stderr);
}
int __android_log_print(int priority, const char* tag, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int written = __android_log_vprint(priority, tag, format, arguments);
  va_end(arguments);
  return written;
}

// The trampolines' targets, by name.
struct slot { const char* name; void** address; };
extern const struct slot bionic_slots[];

__attribute__((constructor)) static void find_functions(void) {
  void* libraries[2] = {dlopen("libc.so.6", RTLD_LAZY), dlopen("libm.so.6", RTLD_LAZY)};
  for (const struct slot* slot = bionic_slots; slot->name; slot++) {
    for (int i = 0; i < 2 && !*slot->address; i++) *slot->address = dlsym(libraries[i], slot->name);
  }
  bionic_stderr = stderr;
  bionic_stdout = stdout;
}
