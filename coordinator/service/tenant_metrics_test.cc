#include "coordinator/service/tenant_metrics.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace tessera::coordinator {
namespace {

using ::testing::HasSubstr;

std::string Render(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

TEST(TenantMetrics, ConfiguredTenantsHaveSeriesBeforeTheFirstStep) {
  prometheus::Registry registry;
  const TenantMetrics metrics({"a", "b"}, &registry);
  const std::string text = Render(registry);
  EXPECT_THAT(text, HasSubstr("tessera_tenant_waiting_sequences{tenant=\"a\"} 0"));
  EXPECT_THAT(text, HasSubstr("tessera_tenant_scheduled_tokens_total{tenant=\"b\"} 0"));
}

TEST(TenantMetrics, TotalsAdvanceByWhatIsNewAndNeverFall) {
  prometheus::Registry registry;
  TenantMetrics metrics({"a"}, &registry);
  metrics.OnStep(std::vector<TenantGauges>{{.num_waiting = 3,
                                            .num_running = 2,
                                            .running_tokens = 90,
                                            .scheduled_tokens = 40}});
  metrics.OnStep(std::vector<TenantGauges>{{.num_waiting = 1, .scheduled_tokens = 55}});
  std::string text = Render(registry);
  EXPECT_THAT(text, HasSubstr("tessera_tenant_waiting_sequences{tenant=\"a\"} 1"));
  EXPECT_THAT(text, HasSubstr("tessera_tenant_scheduled_tokens_total{tenant=\"a\"} 55"));
  metrics.OnStep(std::vector<TenantGauges>{{.scheduled_tokens = 5}});
  text = Render(registry);
  EXPECT_THAT(text, HasSubstr("tessera_tenant_scheduled_tokens_total{tenant=\"a\"} 55"));
}

TEST(TenantMetrics, WithoutTenantsThereAreNoSeries) {
  prometheus::Registry registry;
  TenantMetrics metrics({}, &registry);
  metrics.OnStep(std::vector<TenantGauges>(2));
  EXPECT_TRUE(registry.Collect().empty());
}

}  // namespace
}  // namespace tessera::coordinator
