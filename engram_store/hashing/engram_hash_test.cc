#include "engram_store/hashing/engram_hash.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

using Row = std::vector<uint32_t>;

std::vector<int32_t> IdentityMap(int64_t size) {
  std::vector<int32_t> ids(static_cast<size_t>(size));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

template <typename T>
std::vector<T> Vector(std::span<const T> values) {
  return std::vector<T>(values.begin(), values.end());
}

model::EngramConfig DemoGeometry(int64_t compressed_vocab) {
  model::EngramConfig config;
  config.contract = model::EngramContract::kDemo;
  config.layer_ids = {1, 15};
  config.max_ngram = 3;
  config.num_heads = 8;
  config.head_dim = 64;
  config.bucket_bases = {646400, 646400};
  config.compressed_vocab_size = compressed_vocab;
  config.pad_token_id = 2;
  return config;
}

model::EngramConfig V41Geometry() {
  model::EngramConfig config;
  config.layer_ids = {1, 14};
  config.max_ngram = 4;
  config.num_heads = 8;
  config.head_dim = 256;
  config.bucket_bases = {16000000, 16000000, 16000000};
  config.compressed_vocab_size = 99092;
  config.pad_token_id = 2;
  config.num_embeddings = {384006168, 384016682};
  return config;
}

model::EngramConfig DemoModel() {
  model::EngramConfig config;
  config.layer_ids = {1, 3};
  config.max_ngram = 4;
  config.num_heads = 4;
  config.head_dim = 32;
  config.bucket_bases = {3000, 3000, 3000};
  config.compressed_vocab_size = 3076;
  config.pad_token_id = 2;
  config.num_embeddings = {36560, 37956};
  return config;
}

EngramHash MakeIdentity(const model::EngramConfig& config) {
  return EngramHash::Create(config, IdentityMap(config.compressed_vocab_size)).value();
}

// Global rows of every token of `ids`, a whole sequence.
std::vector<Row> Rows(const EngramHash& hash, int64_t layer, std::span<const int32_t> ids,
                      std::span<const uint8_t> dead = {}) {
  const size_t columns = static_cast<size_t>(hash.num_columns());
  std::vector<uint32_t> flat(ids.size() * columns);
  hash.RowIds(layer, ids, 0, true, dead, flat);
  std::vector<Row> rows;
  for (size_t t = 0; t < ids.size(); ++t) {
    rows.emplace_back(flat.begin() + static_cast<ptrdiff_t>(t * columns),
                      flat.begin() + static_cast<ptrdiff_t>((t + 1) * columns));
  }
  return rows;
}

// Column-local rows: the offsets taken off again.
std::vector<Row> LocalRows(const EngramHash& hash, int64_t layer,
                           std::span<const int32_t> ids) {
  std::vector<Row> rows = Rows(hash, layer, ids);
  for (Row& row : rows) {
    uint32_t offset = 0;
    for (size_t column = 0; column < row.size(); ++column) {
      row[column] -= offset;
      offset += hash.primes(layer)[column];
    }
  }
  return rows;
}

// Worked examples A to F of DeepSeek's two contracts.

TEST(EngramHashExamples, ATiny) {
  model::EngramConfig config = DemoGeometry(100);
  config.num_heads = 2;
  config.bucket_bases = {50, 50};
  const EngramHash hash = MakeIdentity(config);
  const std::vector<int32_t> ids = {5, 17, 42, 5, 17, 99, 0};

  EXPECT_THAT(Vector(hash.multipliers(0)),
              ElementsAre(75936276614146333u, 4795930018386233u, 35633158494689637u));
  EXPECT_THAT(Vector(hash.primes(0)), ElementsAre(53u, 59u, 61u, 67u));
  EXPECT_THAT(LocalRows(hash, 0, ids),
              ElementsAre(Row{42, 50, 54, 47}, Row{8, 27, 18, 23}, Row{7, 52, 16, 31},
                          Row{19, 23, 36, 60}, Row{8, 27, 24, 22}, Row{24, 2, 16, 66},
                          Row{28, 37, 29, 52}));
  EXPECT_THAT(Rows(hash, 0, ids)[0], ElementsAre(42u, 103u, 166u, 220u));

  EXPECT_THAT(Vector(hash.multipliers(1)),
              ElementsAre(28656513679687635u, 55511705102368817u, 53439361606171023u));
  EXPECT_THAT(Vector(hash.primes(1)), ElementsAre(71u, 73u, 79u, 83u));
  EXPECT_THAT(LocalRows(hash, 1, ids),
              ElementsAre(Row{0, 48, 35, 14}, Row{37, 61, 53, 74}, Row{22, 55, 27, 61},
                          Row{51, 18, 48, 8}, Row{37, 61, 42, 47}, Row{43, 3, 23, 75},
                          Row{5, 38, 3, 68}));
}

TEST(EngramHashExamples, BThreeOrdersWithUnequalBases) {
  model::EngramConfig config;
  config.contract = model::EngramContract::kDemo;
  config.layer_ids = {0, 3};
  config.max_ngram = 4;
  config.num_heads = 3;
  config.bucket_bases = {1000, 2000, 3000};
  config.compressed_vocab_size = 1000;
  config.pad_token_id = 7;
  config.seed = 42;
  const EngramHash hash = MakeIdentity(config);
  const std::vector<int32_t> x = {1, 2, 3, 4, 5, 6};
  const std::vector<int32_t> y = {999, 0, 500, 7, 7, 7};

  EXPECT_THAT(Vector(hash.multipliers(0)),
              ElementsAre(7138484576005689u, 4047939128787533u, 7919168045412321u,
                          6432084778622665u));
  EXPECT_THAT(Vector(hash.primes(0)),
              ElementsAre(1009u, 1013u, 1019u, 2003u, 2011u, 2017u, 3001u, 3011u, 3019u));
  const std::vector<Row> x0 = LocalRows(hash, 0, x);
  EXPECT_EQ(x0[0], (Row{333, 727, 299, 806, 635, 1900, 2837, 657, 703}));
  EXPECT_EQ(x0[3], (Row{513, 560, 251, 701, 742, 1206, 2267, 2007, 1230}));
  EXPECT_EQ(x0[5], (Row{610, 618, 980, 1877, 1986, 691, 942, 2925, 669}));
  const std::vector<Row> y0 = LocalRows(hash, 0, y);
  EXPECT_EQ(y0[0], (Row{797, 374, 963, 88, 445, 42, 235, 2111, 189}));
  EXPECT_EQ(y0[5], (Row{612, 52, 14, 1295, 386, 545, 1321, 1098, 1986}));

  EXPECT_THAT(Vector(hash.multipliers(1)),
              ElementsAre(420710217084119u, 4725447333295803u, 4355102315306543u,
                          8670202368508265u));
  EXPECT_THAT(Vector(hash.primes(1)),
              ElementsAre(1021u, 1031u, 1033u, 2027u, 2029u, 2039u, 3023u, 3037u, 3041u));
  const std::vector<Row> x3 = LocalRows(hash, 1, x);
  EXPECT_EQ(x3[0], (Row{598, 928, 401, 753, 1366, 754, 2080, 2787, 585}));
  EXPECT_EQ(x3[5], (Row{114, 103, 707, 423, 1412, 623, 2116, 433, 2313}));
  EXPECT_EQ(LocalRows(hash, 1, y)[3],
            (Row{951, 333, 1000, 1216, 1574, 1482, 1098, 2431, 2651}));
}

TEST(EngramHashExamples, CDemoGeometryWithIdentityMap) {
  const EngramHash hash = MakeIdentity(DemoGeometry(129280));
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4};

  EXPECT_THAT(Vector(hash.multipliers(0)),
              ElementsAre(58737837727525u, 3709723095905u, 27562777300965u));
  EXPECT_THAT(Vector(hash.primes(0)),
              ElementsAre(646403u, 646411u, 646421u, 646423u, 646433u, 646453u, 646519u,
                          646523u, 646537u, 646543u, 646549u, 646571u, 646573u, 646577u,
                          646609u, 646619u));
  const std::vector<Row> first = LocalRows(hash, 0, ids);
  EXPECT_EQ(first[0],
            (Row{237660, 203622, 487480, 156825, 444949, 385424, 613000, 612173, 111511,
                 515794, 283500, 594587, 100497, 408783, 448187, 33654}));
  EXPECT_EQ(first[4],
            (Row{27245, 43604, 8400, 532624, 638692, 557535, 203776, 425474, 23612,
                 463136, 301111, 522964, 102891, 570887, 508592, 226155}));

  EXPECT_THAT(Vector(hash.multipliers(1)),
              ElementsAre(22166238923025u, 42939128327945u, 41336139856257u));
  EXPECT_THAT(Vector(hash.primes(1)),
              ElementsAre(646631u, 646637u, 646643u, 646669u, 646687u, 646721u, 646757u,
                          646771u, 646781u, 646823u, 646831u, 646837u, 646843u, 646859u,
                          646873u, 646879u));
  const std::vector<Row> second = LocalRows(hash, 1, ids);
  EXPECT_EQ(second[0],
            (Row{541378, 345650, 164706, 413678, 151766, 451220, 182487, 42035, 247231,
                 398250, 586461, 243636, 548626, 288645, 147717, 458593}));
  EXPECT_EQ(second[4],
            (Row{197923, 620744, 404038, 624851, 109739, 173487, 223412, 491572, 104187,
                 573079, 532399, 526333, 541219, 36488, 283056, 423648}));
  EXPECT_EQ(hash.num_rows(0), 10344164u);
  EXPECT_EQ(hash.num_rows(1), 10348242u);
}

TEST(EngramHashExamples, DDemoGeometryWithARealSentence) {
  // The entries of the DeepSeek-V3 map that the sentence needs, and one that fixes V'.
  std::vector<int32_t> map(128815, 0);
  const std::vector<int32_t> raw = {0,   22898, 19737, 270,   9327,  1494, 112253,
                                    270, 15000, 406,   11999, 25670, 349,  16};
  const std::vector<int32_t> compressed = {0,   1134,  15720, 237,  2049,  1260, 86103,
                                           237, 12085, 36,    9752, 20271, 290,  16};
  for (size_t i = 0; i < raw.size(); ++i) {
    map[static_cast<size_t>(raw[i])] = compressed[i];
  }
  map[2] = 2;
  map[128814] = 99044;
  const EngramHash hash = EngramHash::Create(DemoGeometry(99045), map).value();

  EXPECT_THAT(Vector(hash.multipliers(0)),
              ElementsAre(76668460411071u, 4842172768323u, 35976736326609u));
  EXPECT_EQ(LocalRows(hash, 0, raw)[4],
            (Row{248302, 167002, 16923, 411118, 623097, 644444, 418450, 6531, 503625,
                 581263, 157798, 31724, 523811, 259821, 237533, 315204}));
  EXPECT_THAT(Vector(hash.multipliers(1)),
              ElementsAre(28932822131039u, 56046953508373u, 53954628306497u));
  EXPECT_EQ(LocalRows(hash, 1, raw)[4],
            (Row{541947, 296366, 59732, 135292, 217930, 228941, 42541, 533596, 285121,
                 499622, 320547, 22500, 457655, 573431, 559180, 137503}));
}

TEST(EngramHashExamples, EV41) {
  const EngramHash hash = MakeIdentity(V41Geometry());
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4};
  EXPECT_THAT(Vector(hash.multipliers(0)), ElementsAre(76632096046245u, 4839876093313u,
                                                       35959672319349u, 73987337458391u));
  EXPECT_THAT(Vector(hash.multipliers(1)), ElementsAre(67716810739261u, 51510806800915u,
                                                       30921347202721u, 82619226485591u));
  EXPECT_EQ(hash.primes(0).front(), 16000057u);
  EXPECT_EQ(hash.primes(0).back(), 16000463u);
  EXPECT_EQ(hash.primes(1).front(), 16000477u);
  EXPECT_EQ(hash.primes(1).back(), 16000889u);
  const std::vector<Row> first = LocalRows(hash, 0, ids);
  EXPECT_EQ(first[0], (Row{5702652, 8393127,  7183165,  13503566, 14984167, 10144335,
                           7724419, 9475835,  3475837,  8384857,  4142376,  15597694,
                           6143841, 9417185,  14327381, 7479691,  1517251,  11537031,
                           685789,  11260657, 2310206,  12885188, 15859958, 12060488}));
  EXPECT_EQ(first[4], (Row{4081432, 6739507,  15708526, 7460625,  3089974,  6966776,
                           8905237, 9139100,  693014,   4000469,  4735591,  12457270,
                           871757,  3079775,  6392612,  8969935,  9263663,  11768252,
                           3341554, 15128730, 1653030,  13440358, 13426912, 7527389}));
  EXPECT_EQ(LocalRows(hash, 1, ids)[4],
            (Row{10178152, 5782097,  506963,  12990794, 11232484, 15981871,
                 160105,   8250335,  8132877, 14934622, 551716,   14155290,
                 13765792, 10979355, 1002107, 3010054,  15310773, 3196647,
                 9775362,  5737326,  6932035, 14705609, 13359603, 6629573}));
}

TEST(EngramHashExamples, FDeadTokenBlocksAndLatches) {
  const EngramHash hash = MakeIdentity(V41Geometry());
  const std::vector<int32_t> ids = {10, 20, 30, 40, 50, 60};
  const std::vector<uint8_t> dead = {0, 0, 1, 0, 0, 0};
  const std::vector<Row> alive = Rows(hash, 0, ids);
  const std::vector<Row> blocked = Rows(hash, 0, ids, dead);
  EXPECT_EQ(alive[3],
            (Row{1326936,   22120929,  40011923,  55142539,  77849479,  85421395,
                 105208034, 120570043, 142088989, 151706440, 164511320, 186980067,
                 199834903, 222266846, 231919637, 244765195, 270969918, 287524568,
                 292261800, 310632033, 322879311, 341250912, 361620893, 378628807}));
  EXPECT_EQ(blocked[2],
            (Row{4299726,   29253038,  43157972,  58397134,  65256332,  88876378,
                 100686433, 112312540, 129401291, 144510675, 170979806, 184903880,
                 199719089, 215127204, 230239700, 250883315, 264341430, 275127613,
                 298781502, 318608685, 331826823, 351654054, 365224186, 370096053}));
  EXPECT_EQ(blocked[3],
            (Row{7957620,   22328225,  38180748,  53003837,  67249966,  82668503,
                 98378416,  126783432, 138481726, 153107076, 170580596, 178072915,
                 202944594, 223385660, 238053324, 251244583, 261093168, 279040233,
                 291032532, 305030090, 325029180, 339028090, 353038012, 369052152}));
  // The 4-gram of position 5 alone touches the dead token.
  EXPECT_EQ(blocked[5][0], 13392526u);
  EXPECT_EQ(blocked[5][15], 242547067u);
  for (size_t column = 0; column < 16; ++column) {
    EXPECT_EQ(blocked[5][column], alive[5][column]) << column;
  }
  EXPECT_EQ(Row(blocked[5].begin() + 16, blocked[5].end()),
            (Row{263483621, 275639539, 290556526, 306017724, 326993054, 342457044,
                 365765870, 369705243}));
}

TEST(EngramHash, DemoModelHasItsPublishedConstants) {
  const EngramHash hash = MakeIdentity(DemoModel());
  EXPECT_THAT(Vector(hash.primes(0)),
              ElementsAre(3001u, 3011u, 3019u, 3023u, 3037u, 3041u, 3049u, 3061u, 3067u,
                          3079u, 3083u, 3089u));
  EXPECT_THAT(Vector(hash.multipliers(0)),
              ElementsAre(2468669590837007u, 155914499947537u, 1158425178631003u,
                          2383469845067303u));
  EXPECT_THAT(Vector(hash.primes(1)),
              ElementsAre(3109u, 3119u, 3121u, 3137u, 3163u, 3167u, 3169u, 3181u, 3187u,
                          3191u, 3203u, 3209u));
  EXPECT_THAT(Vector(hash.multipliers(1)),
              ElementsAre(886769541817087u, 2630616883111481u, 350427814574499u,
                          2264585421453215u));
}

TEST(EngramHash, DemoModelRowsOfTheSevenTokenGoldenPrompt) {
  // Compressed ids of the golden's raw ids 0 360 1036 1043 43 339 358.
  const std::vector<int32_t> ids = {0, 303, 570, 807, 43, 65, 302};
  const EngramHash hash = MakeIdentity(DemoModel());
  const std::vector<Row> first = Rows(hash, 0, ids);
  EXPECT_EQ(first[0], (Row{2231, 4273, 7854, 9304, 13712, 16644, 21019, 23356, 25142,
                           28591, 31184, 35303}));
  EXPECT_EQ(first[6], (Row{2308, 3264, 6327, 10389, 13677, 18041, 20488, 23688, 27253,
                           27562, 33098, 36152}));
  const std::vector<Row> second = Rows(hash, 1, ids);
  EXPECT_EQ(second[0], (Row{2394, 4431, 6231, 10218, 14011, 17228, 20481, 25161, 26203,
                            31001, 34398, 35813}));
  EXPECT_EQ(second[6], (Row{2382, 5973, 8039, 12233, 14452, 18506, 21071, 22774, 25671,
                            30336, 32096, 35044}));
}

TEST(EngramHash, ChunksGiveTheRowsOfTheWholeSequenceAtEverySplitPoint) {
  const EngramHash hash = MakeIdentity(DemoModel());
  std::mt19937 random(20240);
  std::vector<int32_t> ids(40);
  std::vector<uint8_t> dead(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(random() % 3076);
    dead[i] = random() % 7 == 0 ? 1 : 0;
  }
  const size_t columns = static_cast<size_t>(hash.num_columns());
  for (const bool with_dead : {false, true}) {
    const std::span<const uint8_t> flags =
        with_dead ? std::span<const uint8_t>(dead) : std::span<const uint8_t>();
    std::vector<uint32_t> whole(ids.size() * columns);
    hash.RowIds(1, ids, 0, true, flags, whole);
    for (size_t split = 0; split <= ids.size(); ++split) {
      // The second chunk sees no more than the N - 1 tokens before it, when there are as
      // many.
      const size_t lookback = std::min<size_t>(split, 3);
      const size_t from = split - lookback;
      std::vector<uint32_t> tail((ids.size() - split) * columns);
      hash.RowIds(1, std::span<const int32_t>(ids).subspan(from),
                  static_cast<int64_t>(lookback), from == 0,
                  with_dead ? flags.subspan(from) : flags, tail);
      EXPECT_THAT(
          tail, ElementsAreArray(whole.begin() + static_cast<ptrdiff_t>(split * columns),
                                 whole.end()))
          << "split " << split;
    }
  }
}

TEST(EngramHash, BarrettAgreesWithDivisionAndRowsStayInTheirColumns) {
  const EngramHash hash = MakeIdentity(V41Geometry());
  std::mt19937 random(7);
  std::vector<int32_t> ids(500);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % 99092);
  }
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::vector<Row> rows = LocalRows(hash, layer, ids);
    const std::span<const uint64_t> m = hash.multipliers(layer);
    for (size_t t = 3; t < ids.size(); ++t) {
      uint64_t mixed = static_cast<uint64_t>(ids[t]) * m[0];
      for (size_t order = 1; order < 4; ++order) {
        mixed ^= static_cast<uint64_t>(ids[t - order]) * m[order];
        for (size_t head = 0; head < 8; ++head) {
          const size_t column = (order - 1) * 8 + head;
          ASSERT_EQ(rows[t][column], mixed % hash.primes(layer)[column]);
        }
      }
    }
  }
}

absl::StatusCode CreateCode(const model::EngramConfig& config,
                            const std::vector<int32_t>& map) {
  return EngramHash::Create(config, map).status().code();
}

TEST(EngramHashCreate, RefusesWhatDoesNotFitTheConfig) {
  const model::EngramConfig good = DemoModel();
  const std::vector<int32_t> map = IdentityMap(3076);
  EXPECT_EQ(CreateCode(good, map), absl::StatusCode::kOk);
  EXPECT_EQ(CreateCode(good, IdentityMap(3075)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode(good, {}), absl::StatusCode::kInvalidArgument);

  std::vector<int32_t> negative = map;
  negative[5] = -1;
  EXPECT_EQ(CreateCode(good, negative), absl::StatusCode::kInvalidArgument);

  model::EngramConfig bad = good;
  bad.num_embeddings = {36560, 37957};
  EXPECT_EQ(CreateCode(bad, map), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.bucket_bases = {3000};
  EXPECT_EQ(CreateCode(bad, map), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.pad_token_id = 3076;
  EXPECT_EQ(CreateCode(bad, map), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.layer_ids = {1, -3};
  EXPECT_EQ(CreateCode(bad, map), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.num_embeddings.clear();
  bad.bucket_bases = {3000, 3000, 2000000000};  // Four heads of it exceed 2^32 rows.
  EXPECT_EQ(CreateCode(bad, map), absl::StatusCode::kInvalidArgument);
}

TEST(EngramHashDeathTest, TokenIdsOutsideTheMapAreBugs) {
  const EngramHash hash = MakeIdentity(DemoModel());
  std::vector<uint32_t> rows(12);
  EXPECT_DEATH(hash.RowIds(0, std::vector<int32_t>{3076}, 0, true, {}, rows), "raw");
  EXPECT_DEATH(hash.RowIds(0, std::vector<int32_t>{-1}, 0, true, {}, rows), "raw");
}

}  // namespace
}  // namespace tessera::engram_store
