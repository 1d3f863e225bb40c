package android.widget;

import android.content.Context;

public class ProgressBar extends android.view.View {
  private int progress;

  public ProgressBar(Context context) { super(context); }
  public synchronized void setProgress(int progress) { this.progress = progress; }
  public synchronized int getProgress() { return progress; }
}
