package ai.molkv.demo

import ai.molkv.MolkvBundle
import ai.molkv.ParityCheck
import ai.molkv.ParityVerdict
import ai.molkv.android.AssetFiles
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** Run with the classes of an APK: the bundle among its assets, read where it lies. */
class PayloadCheck {
    @Test
    fun theBundleOfTheApkGivesTheGoldenAnswers() =
        runBlocking {
            val application = DemoApplication()
            val bundle = MolkvBundle.open(AssetFiles(application, "bundle"))
            bundle.verifyExperts()
            bundle.openSession().use { session ->
                val results = ParityCheck(bundle, session).run().toList()
                assertEquals(emptyList(), results.filter { it.verdict != ParityVerdict.PASSED })
                assertTrue(results.size > 10, "$results")
            }
            assertEquals(listOf("assets/bundle"), application.bundles().map { it.name })
        }
}
