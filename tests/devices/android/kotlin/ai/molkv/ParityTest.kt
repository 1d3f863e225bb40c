package ai.molkv

import kotlinx.coroutines.flow.toList
import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** What Python computed, token for token and byte for byte. */
class ParityTest {
    @Test
    fun everyGoldenCaseOfEveryBundle() =
        suspending {
            for (folder in TestFiles.bundles()) {
                val bundle = MolkvBundle.open(folder)
                bundle.openSession(SessionOptions(threads = 1)).use { session ->
                    val results = ParityCheck(bundle, session).run().toList()
                    val golden = bundle.golden()
                    val cases =
                        golden.cases.map { it.name } + listOf("rows").filter { golden.rows.any() }
                    assertEquals(cases.toSet(), results.map { it.case }.toSet(), folder.name)
                    assertTrue(
                        results.all { it.verdict == expected(bundle, it.what) },
                        "${folder.name}: $results",
                    )
                }
            }
        }

    private fun expected(
        bundle: MolkvBundle,
        what: String,
    ): ParityVerdict {
        val alwaysComparable = what == "row bytes" || what == "tokenizer"
        val float32 =
            bundle.manifest.backends
                .getValue("onnx")
                .isFloat32
        return if (alwaysComparable || float32) {
            ParityVerdict.PASSED
        } else {
            ParityVerdict.NOT_COMPARABLE
        }
    }

    @Test
    fun aWrongGoldenAnswerFails() =
        suspending {
            val folder = TestFiles.copyOf("small")
            val golden = folder.resolve("golden.json")
            val case = TestFiles.json(golden).getAsJsonArray("cases")[0].asJsonObject
            val first = case.getAsJsonArray("greedy")[0].asInt
            val text = golden.readText()
            // Another first token, which is in the vocabulary.
            val wrong = text.replaceFirst(Regex("(\"greedy\": \\[\\s*)$first"), "$1${first xor 1}")
            assertTrue(wrong != text)
            golden.writeText(wrong)
            val bundle = MolkvBundle.open(folder, verifyChecksums = false)
            bundle.openSession().use { session ->
                val failed =
                    ParityCheck(bundle, session)
                        .run()
                        .toList()
                        .filter { it.verdict == ParityVerdict.FAILED }
                assertEquals(listOf("greedy tokens"), failed.map { it.what })
            }
        }

    @Test
    fun expertsInMemoryGiveTheSame() =
        suspending {
            val options = SessionOptions(threads = 1, chunk = 5, expertsMode = ExpertsMode.RESIDENT)
            for (name in listOf("small", "stored")) {
                val bundle = MolkvBundle.open(TestFiles.bundle(name))
                bundle.openSession(options).use { session ->
                    val results = ParityCheck(bundle, session).run().toList()
                    assertTrue(results.all { it.verdict == ParityVerdict.PASSED }, "$results")
                }
            }
        }
}
