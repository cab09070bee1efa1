// What the coordinator itself costs per step, at 256 sequences that decode over a stub
// rank: the parts of the engine's thread, which runs beside the device, and of the I/O
// threads, which turn tokens into events. The stub's own time is taken out.
// `host_time_bench --sequences=N` for another number. Prints; asserts nothing.
#include <cstdint>
#include <deque>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "fmt/format.h"

#include "benchmarks/stub_service.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "coordinator/api/http_wire.h"
#include "coordinator/service/engine_core.h"
#include "coordinator/service/output_processor.h"
#include "proto/step_convert.h"
#include "tests/testing/fake_text.h"
#include "tests/testing/stub_executor.h"

namespace tessera::benchmarks {
namespace {

using coordinator::EngineCore;

constexpr std::string_view kSequencesFlag = "--sequences=";
constexpr int kWarmSteps = 64;
constexpr int kSteps = 512;

double Microseconds(absl::Duration duration, int64_t count) {
  return absl::ToDoubleMicroseconds(duration) / static_cast<double>(count);
}

// Runs `work` `count` times; the mean time of one.
double TimeOf(int64_t count, const std::function<void()>& work) {
  const absl::Time begin = absl::Now();
  for (int64_t i = 0; i < count; ++i) {
    work();
  }
  return Microseconds(absl::Now() - begin, count);
}

// Hands everything on to a stub rank and knows how long that took. It keeps the last plan
// and result.
class TimedExecutor final : public proto::StepExecutor {
 public:
  explicit TimedExecutor(const testing::StubWorkerOptions& options)
      : stub_(options, Clock::Real()) {}

  absl::Status Submit(proto::StepPlan plan) override {
    const absl::Time begin = absl::Now();
    plan_ = plan;
    const absl::Status status = stub_.Submit(std::move(plan));
    spent_ += absl::Now() - begin;
    return status;
  }
  absl::Status SubmitLate(proto::LateInput late) override {
    return stub_.SubmitLate(std::move(late));
  }
  absl::StatusOr<proto::StepResult> Wait(absl::Time deadline) override {
    const absl::Time begin = absl::Now();
    absl::StatusOr<proto::StepResult> result = stub_.Wait(deadline);
    if (result.ok()) {
      result_ = *result;
    }
    spent_ += absl::Now() - begin;
    return result;
  }
  void Abort(absl::Status reason) override { stub_.Abort(std::move(reason)); }

  absl::Duration TakeSpent() { return std::exchange(spent_, absl::ZeroDuration()); }
  const proto::StepPlan& plan() const { return plan_; }
  const proto::StepResult& result() const { return result_; }

 private:
  testing::StubExecutor stub_;
  absl::Duration spent_;
  proto::StepPlan plan_;
  proto::StepResult result_;
};

class NoProvider final : public coordinator::GroupProvider {
 public:
  absl::StatusOr<coordinator::RankExecutors> Form(uint64_t /*epoch*/) override {
    return absl::InternalError("the benchmark forms its group itself");
  }
  void OnGroupFailed(uint64_t /*epoch*/, const absl::Status& /*reason*/) override {}
};

// Sums what the scheduler took, and hands on to the metrics if there are any.
class SchedulerTimes final : public coordinator::EngineObserver {
 public:
  explicit SchedulerTimes(coordinator::EngineObserver* next) : next_(next) {}

  void OnStep(const coordinator::StepObservation& step) override {
    spent_ += step.scheduler_time;
    if (next_ != nullptr) {
      next_->OnStep(step);
    }
  }
  void OnToken(std::optional<absl::Duration> gap) override {
    if (next_ != nullptr) {
      next_->OnToken(gap);
    }
  }

  absl::Duration TakeSpent() { return std::exchange(spent_, absl::ZeroDuration()); }

 private:
  coordinator::EngineObserver* const next_;
  absl::Duration spent_;
};

// An Engine that submits at once, on the caller's thread.
class CoreEngine final : public coordinator::Engine {
 public:
  explicit CoreEngine(EngineCore* core) : core_(core) {}

  absl::Status Submit(coordinator::ValidatedRequest request,
                      std::shared_ptr<coordinator::RequestSink> sink) override {
    core_->Submit(std::move(request), std::move(sink));
    return absl::OkStatus();
  }
  void Cancel(const std::string& request_id) override { core_->Cancel(request_id); }
  coordinator::EngineStatus status() const override { return {}; }
  absl::Duration retry_after() const override { return absl::Seconds(1); }

 private:
  EngineCore* const core_;
};

// The tasks that writers post, in place of the I/O threads.
using Tasks = std::deque<std::function<void()>>;

class CountingWriter final : public coordinator::ResponseWriter {
 public:
  CountingWriter(Tasks* tasks, size_t* bytes) : tasks_(tasks), bytes_(bytes) {}

  void Respond(coordinator::HttpResponse response) override {
    *bytes_ += response.body.size();
  }
  void StartStream(coordinator::HttpResponse /*head*/) override {}
  void Write(std::string data) override {
    *bytes_ += coordinator::BodyChunk(data).size();
  }
  void Finish(bool /*close*/) override {}
  void OnDisconnect(std::function<void()> /*handler*/) override {}
  void Post(std::function<void()> task) override { tasks_->push_back(std::move(task)); }

 private:
  Tasks* const tasks_;
  size_t* const bytes_;
};

void RunTasks(Tasks* tasks) {
  while (!tasks->empty()) {
    const std::function<void()> task = std::move(tasks->front());
    tasks->pop_front();
    task();
  }
}

class NullSink final : public coordinator::RequestSink {
 public:
  void OnToken(const coordinator::TokenEvent& /*event*/) override {}
  void OnChoiceFinished(const coordinator::ChoiceFinished& /*event*/) override {}
  void OnDone(const coordinator::RequestUsage& /*usage*/) override {}
  void OnError(const absl::Status& /*status*/) override {}
};

// Microseconds per step.
struct StepTimes {
  double engine = 0;     // the engine's thread, without the stub
  double scheduler = 0;  // Plan and Accept of that
  double door = 0;       // the I/O threads: events as JSON
  double bytes = 0;      // that go out
};

// An engine without its thread, all of whose sequences decode.
class Rig {
 public:
  Rig(const model::Tokenizer* tokenizer, int64_t num_sequences,
      coordinator::EngineObserver* metrics)
      : tokenizer_(tokenizer), num_sequences_(num_sequences), times_(metrics) {
    StubServiceOptions service;
    service.max_num_seqs = num_sequences;
    options_ = EngineOptionsOf(service);
    core_ = *EngineCore::Create(options_, &provider_, tokenizer, Clock::Real(), &times_);
    executor_ = std::make_shared<TimedExecutor>(
        WorkerOptionsOf(options_.scheduler, tokenizer->size()));
    core_->FormFinished(*core_->TakeFormRequest(), absl::OkStatus(), {executor_});
    core_->Advance();
  }

  // Fills the engine with requests whose tokens nobody looks at.
  void FillWithNull() {
    coordinator::RequestLimits limits;
    limits.vocab_size = limits.num_token_ids = tokenizer_->size();
    limits.max_model_len = options_.scheduler.max_model_len;
    for (int64_t i = 0; i < num_sequences_; ++i) {
      coordinator::RequestSpec spec;
      spec.request_id = fmt::format("request-{}", i);
      spec.prompt_ids = {1, 2, 3, static_cast<int32_t>(4 + i)};
      spec.max_tokens = 2048;
      auto request =
          coordinator::ValidatedRequest::Create(spec, limits, absl::Now(), 1, nullptr);
      core_->Submit(*std::move(request), std::make_shared<NullSink>());
    }
  }

  // Fills it with streams of a route that generates.
  void FillWithStreams(std::string_view route) {
    chat_ = std::make_unique<tests::PlainChat>(tokenizer_);
    engine_ = std::make_unique<CoreEngine>(core_.get());
    coordinator::ApiServiceOptions api;
    api.model_names = {"stub"};
    api.limits.vocab_size = api.limits.num_token_ids = tokenizer_->size();
    api.limits.max_model_len = options_.scheduler.max_model_len;
    api.system_fingerprint = "tessera-0.1.0-dc02d90add66-cpu/f32";
    api_ = *coordinator::ApiService::Create(api, {.tokenizer = tokenizer_,
                                                  .chat = chat_.get(),
                                                  .engine = engine_.get(),
                                                  .clock = Clock::Real()});
    for (int64_t i = 0; i < num_sequences_; ++i) {
      coordinator::HttpRequest request;
      request.method = "POST";
      request.target = route;
      request.body = fmt::format(
          R"({{"{}":"request {}","messages":[{{"role":"user","content":"{}"}}],)"
          R"("max_tokens":2048,"max_output_tokens":2048,)"
          R"("ignore_eos":true,"stream":true}})",
          route == "/v1/responses" ? "input" : "prompt", i, i);
      api_->Handle(std::move(request),
                   std::make_shared<CountingWriter>(&tasks_, &bytes_));
    }
    RunTasks(&tasks_);
  }

  StepTimes Measure() {
    for (int i = 0; i < kWarmSteps; ++i) {
      core_->Advance();
      RunTasks(&tasks_);
    }
    executor_->TakeSpent();
    times_.TakeSpent();
    bytes_ = 0;
    absl::Duration engine;
    absl::Duration door;
    for (int i = 0; i < kSteps; ++i) {
      const absl::Time begin = absl::Now();
      core_->Advance();
      const absl::Time middle = absl::Now();
      RunTasks(&tasks_);
      engine += middle - begin;
      door += absl::Now() - middle;
    }
    engine -= executor_->TakeSpent();
    TESSERA_CHECK_EQ(core_->num_requests(), num_sequences_);
    return {.engine = Microseconds(engine, kSteps),
            .scheduler = Microseconds(times_.TakeSpent(), kSteps),
            .door = Microseconds(door, kSteps),
            .bytes = static_cast<double>(bytes_) / kSteps};
  }

  const TimedExecutor& executor() const { return *executor_; }

 private:
  const model::Tokenizer* const tokenizer_;
  const int64_t num_sequences_;
  coordinator::EngineOptions options_;
  NoProvider provider_;
  SchedulerTimes times_;
  std::unique_ptr<EngineCore> core_;
  std::shared_ptr<TimedExecutor> executor_;
  std::unique_ptr<model::ChatEncoding> chat_;
  std::unique_ptr<CoreEngine> engine_;
  std::unique_ptr<coordinator::ApiService> api_;
  Tasks tasks_;
  size_t bytes_ = 0;
};

// Text of the tokens of one step, one decoder per sequence.
double TimeDetokenizing(const model::Tokenizer& tokenizer,
                        const proto::StepResult& step) {
  const auto rules = std::make_shared<coordinator::OutputRules>();
  std::vector<coordinator::OutputProcessor> outputs(step.sampled.size(),
                                                    {rules, &tokenizer});
  return TimeOf(kSteps, [&] {
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs[i].Push(step.sampled[i].token, /*length_reached=*/false);
    }
  });
}

// What one step costs beyond this process: its plan to bytes, and its result back.
double TimeEncoding(const proto::StepPlan& plan, const proto::StepResult& result) {
  const std::string reply = proto::ToWire(result).SerializeAsString();
  return TimeOf(kSteps, [&] {
    TESSERA_CHECK(!proto::ToWire(plan).SerializeAsString().empty());
    auto message = proto::ToWire(proto::StepResult());
    TESSERA_CHECK(message.ParseFromString(reply));
    TESSERA_CHECK(proto::FromWire(message).ok());
  });
}

void Print(std::string_view part, double microseconds) {
  std::cout << fmt::format("  {:<52} {:>8.1f} us\n", part, microseconds);
}

void Run(int64_t num_sequences) {
  const auto tokenizer = model::Tokenizer::Load("models/demo");
  TESSERA_CHECK(tokenizer.ok());
  const model::Tokenizer* const text = tokenizer->get();
  coordinator::MetricsOptions metrics_options;
  metrics_options.model_name = "stub";
  coordinator::Metrics metrics(metrics_options);

  Rig bare(text, num_sequences, nullptr);
  bare.FillWithNull();
  const StepTimes plain = bare.Measure();
  Rig observed(text, num_sequences, &metrics);
  observed.FillWithNull();
  const StepTimes counted = observed.Measure();
  const auto times_of = [&](std::string_view route) {
    Rig rig(text, num_sequences, &metrics);
    rig.FillWithStreams(route);
    return rig.Measure();
  };
  const StepTimes streamed = times_of("/v1/completions");

  std::cout << fmt::format("{} sequences, one step\n", num_sequences);
  std::cout << "engine thread, beside the device:\n";
  Print("scheduling (plan and accept)", streamed.scheduler);
  const double detokenizing = TimeDetokenizing(*text, bare.executor().result());
  Print("detokenizing", detokenizing);
  Print("requests (first tokens, ends, usage)",
        plain.engine - plain.scheduler - detokenizing);
  Print("metrics", counted.engine - plain.engine);
  Print("handing events to the doors",
        (streamed.engine - streamed.scheduler) - (counted.engine - counted.scheduler));
  Print("all of it", streamed.engine);
  Print("and with ranks in other processes: encoding",
        TimeEncoding(bare.executor().plan(), bare.executor().result()));
  std::cout << "I/O threads, beside the engine's:\n";
  for (const std::string_view route :
       {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"}) {
    const StepTimes times = times_of(route);
    Print(fmt::format("events of {} as JSON, {:.0f} bytes each", route,
                      times.bytes / static_cast<double>(num_sequences)),
          times.door);
  }
}

}  // namespace
}  // namespace tessera::benchmarks

int main(int argc, char** argv) {
  using tessera::benchmarks::kSequencesFlag;
  tessera::log::Configure(tessera::log::Level::kError, tessera::log::Format::kJson);
  int64_t num_sequences = 256;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word.starts_with(kSequencesFlag)) {
      num_sequences = std::stoll(std::string(word.substr(kSequencesFlag.size())));
    }
  }
  tessera::benchmarks::Run(num_sequences);
  return 0;
}
