// Counts what an emulated Arm program executes, by class of instruction; a plugin of QEMU's user mode:
// `qemu-aarch64 -plugin plugin.so,out=FILE PROGRAM`. After the classes' names, FILE has a line for each
// of the model, which lies between two marks of the program: what it executed of each class, in `kNames`' order.
// exporter/estimate/plugin.py compiles it. Debian packages no qemu-plugin.h, so what is used is declared here;
// these functions have the same signatures in QEMU 6 to 10.
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_execution)(unsigned int vcpu, void* data);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                                  void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb*, on_execution, int flags, void*);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn*, on_execution, int flags, void*);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void*), void*);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
extern struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
extern void* qemu_plugin_insn_haddr(const struct qemu_plugin_insn*);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

enum { FMA, DOT, MATRIX, SIMD, SCALAR, BRANCH, LOAD, STORE, LOAD_BYTES, STORE_BYTES, CLASSES };
static const char* const kNames[CLASSES] = {"fma",  "dot",   "matrix", "simd",       "scalar",
                                            "branch", "load", "store", "load_bytes", "store_bytes"};

// A translated block: what one execution of it adds, and how often it was executed.
struct block {
  struct block* next;
  uint64_t executions;
  uint32_t adds[CLASSES];
};
static struct block* blocks;
static char path[4096];

enum { kMark = 0xD5032C9F, kMostCalls = 64 };  // "hint #100"; android_harness/runner/main.cc
static uint64_t sums_at_mark[2 * kMostCalls][CLASSES];
static int marks;

static bool is(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

static bool is_fma(uint32_t word) {
  return is(word, 0xBF20FC00, 0x0E20CC00) ||  // FMLA, FMLS (vector), float32 and float64
         is(word, 0xBF60FC00, 0x0E400C00) ||  // float16
         is(word, 0xBF80B400, 0x0F801000) ||  // by element
         is(word, 0xBFC0B400, 0x0F001000);
}

static bool is_dot(uint32_t word) {
  return is(word, 0x9FE0FC00, 0x0E809400) ||  // SDOT, UDOT (vector)
         is(word, 0x9FC0F400, 0x0F80E000) ||  // by element
         is(word, 0xBFE0FC00, 0x0E809C00) ||  // USDOT
         is(word, 0xBF40F400, 0x0F00F000);    // USDOT, SUDOT by element
}

static bool is_matrix(uint32_t word) { return is(word, 0xDFE0F400, 0x4E80A400); }  // SMMLA, UMMLA, USMMLA

static uint32_t structure_bytes(uint32_t word) {
  const uint32_t opcode = word >> 12 & 15, quad = word >> 30 & 1;
  if (is(word, 0x01000000, 0)) {  // whole registers
    const uint32_t registers = opcode == 0 || opcode == 2 ? 4 : opcode == 4 || opcode == 6 ? 3
                               : opcode == 7                                       ? 1
                                                                                   : 2;
    return registers * (quad ? 16 : 8);
  }
  const uint32_t elements = 1 + (word >> 21 & 1) + 2 * (word >> 13 & 1);
  const uint32_t kind = opcode >> 2, size = word >> 10 & 3;
  return elements * (kind == 3 ? 1u << size : kind == 2 && size == 1 ? 8u : 1u << kind);
}

// Adds a load or a store. Atomic operations count as loads.
static void add_memory(uint32_t word, uint32_t* adds) {
  const uint32_t size = word >> 30, vector = word >> 26 & 1, opc = word >> 22 & 3;
  bool load = word >> 22 & 1;
  uint32_t bytes = 1u << size;
  if (is(word, 0x3A000000, 0x28000000)) {  // pairs
    bytes = vector ? 8u << size : size == 2 ? 16 : 8;
  } else if (is(word, 0x3B000000, 0x18000000)) {  // literals
    load = true;
    bytes = vector ? 4u << size : size == 1 ? 8 : 4;
  } else if (is(word, 0x3E000000, 0x0C000000)) {
    bytes = structure_bytes(word);
  } else if (is(word, 0x3A000000, 0x38000000)) {  // one register
    if (vector) {
      bytes = opc & 2 ? 16 : bytes;
    } else {
      load = opc != 0;
      if (size == 3 && opc == 2) bytes = 0;  // a prefetch
    }
  }
  adds[load ? LOAD : STORE] += 1;
  adds[load ? LOAD_BYTES : STORE_BYTES] += bytes;
}

static void add(uint32_t word, uint32_t* adds) {
  if (is(word, 0x0A000000, 0x08000000)) {
    add_memory(word, adds);
  } else if (is(word, 0x1C000000, 0x14000000)) {
    adds[BRANCH] += 1;
  } else if (is(word, 0x0E000000, 0x0E000000)) {
    adds[is_fma(word) ? FMA : is_dot(word) ? DOT : is_matrix(word) ? MATRIX : SIMD] += 1;
  } else {
    adds[SCALAR] += 1;
  }
}

static void on_block(unsigned int vcpu, void* data) {
  // Models run on the first thread. Libraries' other threads do a little work at times that no run repeats.
  if (vcpu == 0) ((struct block*)data)->executions += 1;
}

static void on_mark(unsigned int vcpu, void* data) {
  (void)vcpu, (void)data;
  if (marks == 2 * kMostCalls) return;
  uint64_t* sums = sums_at_mark[marks++];
  for (const struct block* block = blocks; block; block = block->next) {
    for (int i = 0; i < CLASSES; ++i) sums[i] += block->executions * block->adds[i];
  }
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  struct block* block = calloc(1, sizeof *block);
  if (!block) abort();
  const size_t count = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(tb, i);
    uint32_t word;  // the bytes of a program lie in this process as they are
    memcpy(&word, qemu_plugin_insn_haddr(instruction), sizeof word);
    add(word, block->adds);
    if (word == kMark) qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, 0, NULL);
  }
  do {
    block->next = __atomic_load_n(&blocks, __ATOMIC_RELAXED);
  } while (!__sync_bool_compare_and_swap(&blocks, block->next, block));
  qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, 0, block);
}

static void on_exit_of_program(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  FILE* file = fopen(path, "w");
  if (!file) return;
  for (int i = 0; i < CLASSES; ++i) fprintf(file, "%s%c", kNames[i], i == CLASSES - 1 ? '\n' : ' ');
  for (int mark = 0; mark + 1 < marks; mark += 2) {
    for (int i = 0; i < CLASSES; ++i) {
      fprintf(file, "%" PRIu64 "%c", sums_at_mark[mark + 1][i] - sums_at_mark[mark][i],
              i == CLASSES - 1 ? '\n' : ' ');
    }
  }
  fclose(file);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void* info,
                                                                int count, char** values) {
  (void)info;
  if (count != 1 || strncmp(values[0], "out=", 4) || strlen(values[0]) - 4 >= sizeof path) return 1;
  strcpy(path, values[0] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
