package ai.molkv

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class GenerationTest {
    /** Prompts with emoji and CJK, and tokens whose bytes are parts of characters. */
    @Test
    fun textStreamsAsPythonStreamsIt() =
        suspending {
            for (generation in TestFiles.expected
                .getAsJsonArray(
                    "generations",
                ).map { it.asJsonObject }) {
                val sampling =
                    generation.getAsJsonObject("sampling").let {
                        Sampling(
                            temperature = it["temperature"].asDouble,
                            topK = it["top_k"].asInt,
                            topP = it["top_p"].asDouble,
                            minP = it["min_p"].asDouble,
                            seed = it["seed"].asString.toULong(),
                        )
                    }
                val expected =
                    generation
                        .getAsJsonArray("tokens")
                        .map { it.asJsonArray }
                        .map { Token(it[0].asLong, it[1].asString) }
                withSession(TestFiles.bundle(generation["bundle"].asString)) { session ->
                    val options = GenerationOptions(expected.size, sampling, stopIds = emptySet())
                    val tokens = session.generate(generation["prompt"].asString, options).toList()
                    assertEquals(expected, tokens, generation["prompt"].asString)
                }
            }
        }

    @Test
    fun aTextGoesOnWithoutAReset() =
        suspending {
            withSession(TestFiles.bundle("small")) { session ->
                val ids = session.encode("Call me Ishmael. The whale")
                val options = GenerationOptions(2, stopIds = emptySet())
                val whole =
                    session
                        .generate(
                            ids,
                            options.copy(maxNewTokens = 8),
                        ).toList()
                        .map { it.id }
                val parts = ArrayList<Long>()
                var prompt = ids
                repeat(4) { round ->
                    val next = session.generate(prompt, options.copy(reset = round == 0))
                    val tokens = next.toList().map { it.id }
                    parts += tokens
                    prompt = longArrayOf(tokens.last())
                }
                assertEquals(whole, parts)
            }
        }

    @Test
    fun statisticsCountOneReadAToken() =
        suspending {
            for (name in listOf("small", "stored")) {
                withSession(TestFiles.bundle(name)) { session ->
                    val ids = longArrayOf(5, 6, 5, 7)
                    session.generate(ids, GenerationOptions(5, stopIds = emptySet())).toList()
                    val statistics = session.statistics.value
                    assertEquals(4, statistics.prefillTokens)
                    assertEquals(4, statistics.decodeTokens)
                    assertEquals(3 + 4, statistics.rowsRead)
                    assertEquals(0, statistics.bytesRead % statistics.rowsRead)
                    assertTrue(statistics.decodeTokensPerSecond > 0)
                    assertTrue(statistics.timeToFirstToken > 0)
                    assertTrue(statistics.windowBytes > 0)
                    session.reset()
                    assertEquals(
                        Statistics(windowBytes = statistics.windowBytes),
                        session.statistics.value,
                    )
                }
            }
        }

    @Test
    fun twoSessionsAtOnceDoNotDisturbEachOther() =
        suspending {
            val bundle = MolkvBundle.open(TestFiles.bundle("small"))
            val options = GenerationOptions(30, Sampling(temperature = 1.0, seed = 3u))
            val sequential = bundle.openSession().use { it.generate("The ship", options).toList() }
            bundle.openSession().use { first ->
                bundle.openSession().use { second ->
                    val flows =
                        listOf(first, second).map { session ->
                            async(Dispatchers.Default) {
                                session.generate("The ship", options).toList()
                            }
                        }
                    for (flow in flows) assertEquals(sequential, flow.await())
                }
            }
        }

    @Test
    fun theContextIsTheEnd() =
        suspending {
            withSession(TestFiles.bundle("small")) { session ->
                val context = session.model.context.toInt()
                val options = GenerationOptions(context, stopIds = emptySet())
                assertEquals(context - 9, session.generate(LongArray(10), options).toList().size)
                assertFailsWith<ContextLengthException> {
                    session.generate(longArrayOf(1, 2), GenerationOptions(reset = false)).first()
                }
                val tooLong = LongArray(context + 1)
                assertFailsWith<ContextLengthException> { session.generate(tooLong).first() }
                assertFailsWith<ContextLengthException> { session.generate(LongArray(0)).first() }
                // After a refusal it goes on working.
                assertEquals(
                    1,
                    session
                        .generate(LongArray(context), options)
                        .take(1)
                        .toList()
                        .size,
                )
            }
        }

    @Test
    fun whatCannotWorkIsRefusedByType() =
        suspending {
            val bundle = MolkvBundle.open(TestFiles.bundle("small"))
            assertFailsWith<UsageException> { bundle.openSession(SessionOptions(chunk = 0)) }
            assertFailsWith<UsageException> { bundle.openSession(SessionOptions(readers = 65)) }
            bundle.openSession().use { session ->
                for (id in listOf(-1L, session.model.vocabSize, Long.MAX_VALUE)) {
                    assertFailsWith<TokenIdException> { session.generate(longArrayOf(id)).first() }
                }
                assertFailsWith<TokenizerException> { session.generate("half \ud83d").first() }
                val negative = GenerationOptions(sampling = Sampling(temperature = -1.0))
                assertFailsWith<UsageException> { session.generate("a", negative).first() }
            }
            val ids = MolkvBundle.open(TestFiles.bundle("mole-int4"))
            ids.openSession().use { session ->
                assertFalse(session.hasTokenizer)
                assertFailsWith<TokenizerException> { session.generate("text").first() }
            }
        }
}
