package ai.molkv

import com.google.gson.JsonNull
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.Test
import java.io.File
import java.io.RandomAccessFile
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class HostileBundleTest {
    @Test
    fun everyHostileBundleIsRefusedByTypeWithPlaceAndFix() {
        val expected = TestFiles.json(TestFiles.attacks.resolve("expected.json"))
        assertTrue(expected.size() > 50)
        val wrong =
            expected.entrySet().mapNotNull { (name, attack) ->
                problem(TestFiles.attacks.resolve(name), attack.asJsonObject)?.let { "$name: $it" }
            }
        assertEquals(emptyList(), wrong, wrong.joinToString("\n"))
    }

    private fun problem(
        folder: File,
        attack: JsonObject,
    ): String? {
        var stage = "open"
        val error =
            runCatching {
                runBlocking {
                    val bundle = MolkvBundle.open(folder)
                    stage = "session"
                    bundle.openSession(SessionOptions(threads = 1)).use { session ->
                        stage = "read"
                        session
                            .generate(
                                LongArray(8) { it.toLong() },
                                GenerationOptions(1),
                            ).toList()
                    }
                }
            }.exceptionOrNull() ?: return "was accepted"
        val type = attack["error"].asString.removeSuffix("Error") + "Exception"
        val parts = attack.getAsJsonArray("message").map { it.asString }
        val missing = parts.filter { it !in error.message.orEmpty() }
        return when {
            error.javaClass.simpleName != type -> "$error instead of $type"
            stage != attack["when"].asString -> "refused at $stage: $error"
            missing.isNotEmpty() -> "$missing is not in: ${error.message}"
            !error.message.orEmpty().endsWith(")") -> "names no fix: ${error.message}"
            else -> null
        }
    }

    /** As `--experts auto` writes it; fields that are null are as if they were absent. */
    @Test
    fun howThePrecisionWasChosenIsNoReasonToRefuse() =
        suspending {
            val folder = TestFiles.copyOf("small")
            val file = folder.resolve("manifest.json")
            val chosen = """{"max_kl": 1e-2, "kl_divergence": 1e-3, "same_top1": 1, "tokens": 9}"""
            val manifest = TestFiles.json(file)
            manifest.getAsJsonObject("quantization").apply {
                add("calibration", JsonParser.parseString(chosen))
                add("embedding", JsonNull.INSTANCE)
            }
            file.writeText(manifest.toString())
            assertEquals(null, MolkvBundle.open(folder).manifest.embeddingPrecision)
        }

    @Test
    fun aBlobThatDisappearsWhileItIsOpenStaysReadable() =
        suspending {
            val folder = TestFiles.copyOf("small")
            withSession(folder) { session ->
                val before = session.generate("The whale", GenerationOptions(20)).toList()
                folder.deleteRecursively()
                assertEquals(before, session.generate("The whale", GenerationOptions(20)).toList())
            }
            val error = assertFailsWith<BundleException> { MolkvBundle.open(folder) }
            assertTrue("missing" in error.problem)
        }

    @Test
    fun aBlobThatShrinksWhileItIsOpenIsATypedError() =
        suspending {
            val folder = TestFiles.copyOf("small")
            withSession(folder) { session ->
                RandomAccessFile(folder.resolve("experts.molkv"), "rw").use { it.setLength(20_000) }
                val last = longArrayOf(session.model.vocabSize - 1)
                val error =
                    assertFailsWith<RowCorruptException> { session.generate(last).toList() }
                assertTrue("token id ${last[0]}" in error.problem, error.problem)
                // What is still there is still read.
                session.generate(longArrayOf(1), GenerationOptions(1)).toList()
            }
        }

    @Test
    fun aRowThatChangesWhileItIsOpenIsATypedError() =
        suspending {
            val folder = TestFiles.copyOf("small")
            withSession(folder) { session ->
                val file = folder.resolve("experts.molkv")
                RandomAccessFile(file, "rw").use { blob ->
                    blob.seek(blob.length() / 2)
                    blob.write(ByteArray((blob.length() / 2).toInt()))
                }
                val last = longArrayOf(session.model.vocabSize - 1)
                assertFailsWith<RowCorruptException> { session.generate(last).toList() }
            }
        }

    @Test
    fun verifyingTheBlobFindsWhatOpeningDoesNotRead() =
        suspending {
            val folder = TestFiles.copyOf("small")
            val whole = MolkvBundle.open(folder)
            var progress = 0L
            whole.verifyExperts { progress = it }
            assertEquals(whole.expertBytes, progress)
            RandomAccessFile(folder.resolve("experts.molkv"), "rw").use { blob ->
                blob.seek(blob.length() - 8)
                blob.write(1)
            }
            val error = assertFailsWith<BundleException> { whole.verifyExperts() }
            assertTrue("experts.molkv: sha256" in error.problem)
        }
}
