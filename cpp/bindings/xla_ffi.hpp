// The part of XLA's foreign function interface (FFI) that a handler for the CPU needs, declared here so that the
// module builds without XLA's headers and links to nothing of it.
//
// The interface is a C ABI made to be used across versions: every struct starts with its size and only ever grows at
// its end, and a handler tells XLA which version it was written for. These are the layouts of versions 0.1 to 0.3
// (jaxlib 0.5 and later; xla/ffi/api/c_api.h), with the names that XLA gives them and without what is not read here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace malis::bindings::xla {

constexpr int kMajorVersion = 0;
// The oldest and the newest one whose layouts were compared with these.
constexpr int kOldestMinorVersion = 1;
constexpr int kNewestMinorVersion = 3;

struct Extension {
    std::size_t struct_size;
    int type;
    Extension* next;
};
constexpr int kExtensionMetadata = 1;

struct ApiVersion {
    std::size_t struct_size;
    Extension* extension_start;
    int major_version;
    int minor_version;
};

struct Metadata {
    std::size_t struct_size;
    ApiVersion api_version;
    std::uint32_t traits;
};

struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};

enum class ErrorCode : int { invalid_argument = 3, resource_exhausted = 8, internal = 13 };

struct Error;

struct ErrorCreateArgs {
    std::size_t struct_size;
    Extension* extension_start;
    const char* message;
    ErrorCode code;
};

struct Api {
    std::size_t struct_size;
    Extension* extension_start;
    ApiVersion api_version;
    const void* internal_api;
    Error* (*error_create)(ErrorCreateArgs*);
};

enum class DataType : int {
    pred = 1,
    s8 = 2,
    s16 = 3,
    s32 = 4,
    s64 = 5,
    u8 = 6,
    u16 = 7,
    u32 = 8,
    u64 = 9,
    f32 = 11,
    f64 = 12,
};

struct Buffer {
    std::size_t struct_size;
    Extension* extension_start;
    DataType dtype;
    void* data;
    std::int64_t rank;
    std::int64_t* dims;
};

struct ByteSpan {
    const char* data;
    std::size_t size;
};

enum class AttributeType : int { array = 1, dictionary = 2, scalar = 3, string = 4 };

struct Scalar {
    DataType dtype;
    void* value;
};

struct Array {
    DataType dtype;
    std::size_t size;
    void* data;
};

struct Arguments {
    std::size_t struct_size;
    Extension* extension_start;
    std::int64_t size;
    int* types;
    void** values;  // Buffer*
};

struct Attributes {
    std::size_t struct_size;
    Extension* extension_start;
    std::int64_t size;
    AttributeType* types;
    ByteSpan** names;
    void** values;  // Array*, Scalar* or ByteSpan*
};

struct CallFrame {
    std::size_t struct_size;
    Extension* extension_start;
    const Api* api;
    void* context;
    int stage;
    Arguments arguments;
    Arguments results;
    Attributes attributes;
};

}  // namespace malis::bindings::xla
