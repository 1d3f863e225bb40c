package ai.molkv.demo

import android.content.ClipData
import android.content.ClipboardManager
import android.content.Context
import android.os.Bundle

/** Speed on this device, over several runs. */
class BenchmarkActivity : DemoActivity(R.layout.benchmark) {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        onClick(R.id.run_benchmark) { model.benchmark() }
        onClick(R.id.stop) { model.stop() }
        onClick(R.id.copy_csv) { copy(Benchmark.csv(model.state.value.runs)) }
    }

    override fun show(state: DemoState) {
        text(R.id.message).text = state.message
        text(R.id.figures).text =
            Benchmark.summarize(state.runs).joinToString("\n") {
                "%s\n  %,.1f (%,.1f to %,.1f)".format(it.figure, it.average, it.least, it.most)
            }
        enable(R.id.run_benchmark, !state.busy && state.bundle.isNotEmpty())
        enable(R.id.stop, state.busy)
        enable(R.id.copy_csv, state.runs.isNotEmpty())
    }

    private fun copy(csv: String) {
        val clipboard = getSystemService(Context.CLIPBOARD_SERVICE) as ClipboardManager
        clipboard.setPrimaryClip(ClipData.newPlainText(getString(R.string.benchmark), csv))
    }
}
