package ai.molkv.demo

import android.content.Intent
import android.os.Bundle

/** A prompt and the answer as it comes. */
class MainActivity : DemoActivity(R.layout.main) {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        onClick(R.id.generate) { model.generate(text(R.id.prompt).text.toString()) }
        onClick(R.id.stop) { model.stop() }
        onClick(R.id.bundles) { open(BundlesActivity::class.java) }
        onClick(R.id.settings) { open(SettingsActivity::class.java) }
        onClick(R.id.benchmark) { open(BenchmarkActivity::class.java) }
        onClick(R.id.parity) { open(ParityActivity::class.java) }
        demo.openDefault()
    }

    override fun show(state: DemoState) {
        text(R.id.message).text = state.message
        text(R.id.answer).text = state.answer
        text(R.id.statistics).text = state.statistics
        enable(R.id.generate, !state.busy && state.bundle.isNotEmpty())
        enable(R.id.stop, state.busy)
    }

    private fun open(screen: Class<*>) = startActivity(Intent(this, screen))
}
