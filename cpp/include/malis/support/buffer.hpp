// Memory that is not touched before it is written.
//
// std::vector fills what it allocates from one thread; the arrays of a volume are first written, in parallel, by the
// loops that need them, and some of them never in full. Large ones ask for huge pages: walking page tables is a good
// part of what random access to a volume costs. The last items may be read past, by up to `slack` bytes, so that
// loops over short rows need no remainder.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace malis {

template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable<T>::value, "Buffer holds plain data");

  public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { resize(size); }
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)),
          huge_(other.huge_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(huge_, other.huge_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { release(); }

    T* data() { return data_; }
    const T* data() const { return data_; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }
    std::size_t size() const { return size_; }
    std::size_t capacity() const { return capacity_; }
    bool empty() const { return size_ == 0; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }

    // Keeps the first min(size, size()) items; further ones are not initialised.
    void resize(std::size_t size) {
        if (size > capacity_) grow(size);
        size_ = size;
    }
    // Forgets the contents: cheaper than resize where they are not needed.
    void reset(std::size_t size) {
        if (size > capacity_) {
            release();
            grow(size);
        }
        size_ = size;
    }
    void reserve(std::size_t capacity) {
        if (capacity > capacity_) grow(capacity > 2 * capacity_ ? capacity : 2 * capacity_);
    }
    void push_back(const T& value) {
        if (size_ == capacity_) grow(capacity_ < 64 ? 64 : 2 * capacity_);
        data_[size_++] = value;
    }
    void clear() { size_ = 0; }
    void release() {
        if (data_ != nullptr) ::operator delete (static_cast<void*>(data_), std::align_val_t{huge_ ? huge_page : 64});
        data_ = nullptr;
        size_ = capacity_ = 0;
    }

  private:
    static constexpr std::size_t slack = 64;
    static constexpr std::size_t huge_page = std::size_t{1} << 21;

    void grow(std::size_t capacity) {
        if (capacity > (static_cast<std::size_t>(-1) / 2) / sizeof(T)) throw std::bad_alloc();
        std::size_t bytes = capacity * sizeof(T) + slack;
        const bool huge = bytes >= 2 * huge_page;
        if (huge) bytes = (bytes + huge_page - 1) / huge_page * huge_page;
        const std::align_val_t alignment{huge ? huge_page : std::size_t{64}};
        void* data = ::operator new(bytes, alignment);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (huge) madvise(data, bytes, MADV_HUGEPAGE);
#endif
        if (size_ > 0) std::memcpy(data, static_cast<const void*>(data_), size_ * sizeof(T));
        const std::size_t size = size_;
        release();
        data_ = static_cast<T*>(data);
        size_ = size;
        capacity_ = capacity;
        huge_ = huge;
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    bool huge_ = false;
};

}  // namespace malis
