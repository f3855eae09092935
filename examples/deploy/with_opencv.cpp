// Runs an exported ONNX file with OpenCV alone.
//
//   apt-get install cmake g++ libopencv-dev
//   cmake -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build
//   build/with_opencv model.onnx image.jpg
//
// Prints a line a detection (class, score, x1 y1 x2 y2) and draws them into found.jpg. OpenCV runs
// float32 files of a fixed size without NMS: export without --nms-in-graph, --half, --dynamic-size.

#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Detection {
    cv::Rect2d box;  // pixels of the network's input
    double score;
    int kind;
};

// ------------------------------------------------------------------------------------- metadata

// Reads a field of protobuf's wire format after another: the metadata of an ONNX file, which
// OpenCV does not give, are a few fields at its top level.
class Fields {
public:
    Fields(const char* begin, const char* end) : at_(begin), end_(end) {}

    // The next field's number, and its bytes where it has any; false at the end.
    bool next(uint64_t& number, std::pair<const char*, const char*>& bytes) {
        if (at_ == end_) return false;
        const uint64_t tag = varint();
        number = tag >> 3;
        bytes = {at_, at_};
        switch (tag & 7) {
            case 0: varint(); break;
            case 1: skip(8); break;
            case 2: {
                const uint64_t size = varint();
                bytes.first = at_;
                skip(size);
                bytes.second = at_;
                break;
            }
            case 5: skip(4); break;
            default: throw std::runtime_error("the model is no ONNX file");
        }
        return true;
    }

private:
    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64 && at_ != end_; shift += 7) {
            const uint64_t byte = static_cast<unsigned char>(*at_++);
            value |= (byte & 127) << shift;
            if (byte < 128) return value;
        }
        throw std::runtime_error("the model is no ONNX file");
    }

    void skip(uint64_t size) {
        if (size > static_cast<uint64_t>(end_ - at_))
            throw std::runtime_error("the model's file ends too early");
        at_ += size;
    }

    const char* at_;
    const char* end_;
};

class Facts {
public:
    explicit Facts(const std::string& file) {
        constexpr uint64_t kMetadata = 14, kKey = 1, kValue = 2;  // of ONNX's protobuf
        uint64_t number = 0;
        std::pair<const char*, const char*> bytes;
        for (Fields model(file.data(), file.data() + file.size()); model.next(number, bytes);) {
            if (number != kMetadata) continue;
            std::string key, value;
            for (Fields entry(bytes.first, bytes.second); entry.next(number, bytes);) {
                if (number == kKey) key.assign(bytes.first, bytes.second);
                if (number == kValue) value.assign(bytes.first, bytes.second);
            }
            texts_[key] = value;
        }
        if (text("input_color") != "BGR" || text("letterbox") != "top left")
            throw std::runtime_error("the model wants its input in another way");
        if (flag("nms")) throw std::runtime_error("OpenCV does not run files with NMS");
        if (const std::string& batch = text("batch_size"); batch != "1" && batch != "null")
            throw std::runtime_error("OpenCV runs files for one image, this is for " + batch);
    }

    const std::string& text(const std::string& key) const {
        const auto found = texts_.find(key);
        if (found == texts_.end())
            throw std::runtime_error("the model does not say its " + key + ": export it with yolox");
        return found->second;
    }

    bool flag(const std::string& key) const { return text(key) == "true"; }
    double number(const std::string& key) const { return std::stod(text(key)); }

    std::vector<int> numbers(const std::string& key) const {  // JSON, as [640, 640]
        std::string list = text(key);
        std::replace_if(
            list.begin(), list.end(), [](char c) { return c < '0' || c > '9'; }, ' ');
        std::istringstream words(list);
        return {std::istream_iterator<int>(words), std::istream_iterator<int>()};
    }

    std::vector<std::string> strings(const std::string& key) const;

private:
    std::map<std::string, std::string> texts_;
};

void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
        out += static_cast<char>(code);
        return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr int kLead[] = {0, 0xC0, 0xE0, 0xF0};
    out += static_cast<char>(kLead[more] | (code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 63));
}

// JSON, as ["cat", "\u732b"]. All but ASCII is written as \u and four digits of UTF-16.
std::vector<std::string> Facts::strings(const std::string& key) const {
    const std::string& list = text(key);
    std::vector<std::string> found;
    bool inside = false;
    uint32_t high = 0;
    for (size_t i = 0; i < list.size(); ++i) {
        if (list[i] == '"') {
            inside = !inside;
            if (inside) found.emplace_back();
        } else if (inside && list[i] == '\\') {
            const char kind = list.at(++i);
            const size_t control = std::string("bfnrt").find(kind);
            if (kind == 'u') {
                const uint32_t unit = std::stoul(list.substr(i + 1, 4), nullptr, 16);
                i += 4;
                if (unit >= 0xD800 && unit < 0xDC00) {
                    high = unit;  // the first half of a pair
                } else if (unit >= 0xDC00 && unit < 0xE000) {
                    append_utf8(found.back(), 0x10000 + ((high - 0xD800) << 10) + unit - 0xDC00);
                } else {
                    append_utf8(found.back(), unit);
                }
            } else {
                found.back() += control == std::string::npos ? kind : "\b\f\n\r\t"[control];
            }
        } else if (inside) {
            found.back() += list[i];
        }
    }
    return found;
}

// ------------------------------------------------------------------------------------ detection

// The network's input (1, 3, height, width), BGR from 0 to 255; gives resized / original too.
cv::Mat letterbox(const cv::Mat& image, const cv::Size& size, double value, double& ratio) {
    ratio = std::min(double(size.height) / image.rows, double(size.width) / image.cols);
    const cv::Size inner(std::max(1, int(image.cols * ratio)), std::max(1, int(image.rows * ratio)));
    cv::Mat canvas(size, CV_8UC3, cv::Scalar::all(value));
    cv::resize(image, canvas(cv::Rect({0, 0}, inner)), inner);
    return cv::dnn::blobFromImage(canvas);
}

// Pixels from offsets and log sizes: levels in the order of their strides, each row by row.
void decode(cv::Mat& rows, const cv::Size& size, const std::vector<int>& strides) {
    int anchor = 0;
    for (const int stride : strides)
        for (int y = 0; y < size.height / stride; ++y)
            for (int x = 0; x < size.width / stride; ++x, ++anchor) {
                float* row = rows.ptr<float>(anchor);
                row[0] = (row[0] + x) * stride;
                row[1] = (row[1] + y) * stride;
                row[2] = std::exp(row[2]) * stride;
                row[3] = std::exp(row[3]) * stride;
            }
}

// Rows are cx, cy, w, h, objectness, class probabilities.
std::vector<Detection> candidates(const cv::Mat& rows, double conf) {
    std::vector<Detection> found;
    for (int i = 0; i < rows.rows; ++i) {
        const float* row = rows.ptr<float>(i);
        const float* best = std::max_element(row + 5, row + rows.cols);
        const double score = row[4] * *best;
        const bool finite = std::all_of(row, row + 4, [](float v) { return std::isfinite(v); });
        if (score < conf || !finite) continue;
        const cv::Rect2d box(row[0] - row[2] / 2., row[1] - row[3] / 2., row[2], row[3]);
        found.push_back({box, score, static_cast<int>(best - row - 5)});
    }
    std::stable_sort(found.begin(), found.end(), [](const Detection& a, const Detection& b) {
        return a.score > b.score;
    });
    return found;
}

// Greedy NMS within each class: a box goes if one that scores more overlaps it too much.
std::vector<Detection> suppress(const std::vector<Detection>& found, double threshold) {
    std::vector<Detection> kept;
    for (const Detection& one : found) {
        const bool covered = std::any_of(kept.begin(), kept.end(), [&](const Detection& other) {
            const double shared = (one.box & other.box).area();
            const double together = one.box.area() + other.box.area() - shared;
            return one.kind == other.kind && shared > threshold * together;
        });
        if (!covered) kept.push_back(one);
    }
    return kept;
}

void report(cv::Mat& image, const Detection& one, double ratio, const std::string& name) {
    const auto x = [&](double v) { return std::clamp(v / ratio, 0., double(image.cols)); };
    const auto y = [&](double v) { return std::clamp(v / ratio, 0., double(image.rows)); };
    const cv::Point2d low(x(one.box.x), y(one.box.y));
    const cv::Point2d high(x(one.box.br().x), y(one.box.br().y));
    std::printf("%s %.4f %.2f %.2f %.2f %.2f\n", name.c_str(), one.score, low.x, low.y, high.x,
                high.y);
    cv::rectangle(image, low, high, {0, 200, 0}, 2);
    const cv::Point place(cvRound(low.x), std::max(12, cvRound(low.y) - 4));
    cv::putText(image, cv::format("%s %.2f", name.c_str(), one.score), place, 0, 0.5, {0, 0, 255});
}

void run(const std::string& path, const std::string& picture) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error(path + ": no such file");
    const std::string file{std::istreambuf_iterator<char>(stream), {}};
    cv::Mat image = cv::imread(picture);
    if (image.empty()) throw std::runtime_error(picture + ": no image that OpenCV can read");

    const Facts facts(file);
    const std::vector<int> sides = facts.numbers("input_size");  // height, width
    const cv::Size size(sides.at(1), sides.at(0));
    cv::dnn::Net net = cv::dnn::readNetFromONNX(file.data(), file.size());
    double ratio = 1;
    net.setInput(letterbox(image, size, facts.number("letterbox_value"), ratio));
    const cv::Mat out = net.forward();  // (1, anchors, 5 + classes)
    cv::Mat rows(out.size[1], out.size[2], CV_32F, out.data);
    if (!facts.flag("decoded")) decode(rows, size, facts.numbers("strides"));

    const std::vector<std::string> names = facts.strings("class_names");
    const auto found = candidates(rows, facts.number("conf_threshold"));
    for (const Detection& one : suppress(found, facts.number("nms_threshold")))
        report(image, one, ratio, names.empty() ? std::to_string(one.kind) : names.at(one.kind));
    cv::imwrite("found.jpg", image);
}

int main(int count, char** words) {
    if (count != 3) {
        std::fprintf(stderr, "usage: %s MODEL.onnx IMAGE\n", words[0]);
        return 1;
    }
    try {
        run(words[1], words[2]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
