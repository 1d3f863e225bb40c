package android.app;

import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.FakeResources;
import android.view.View;
import android.view.ViewGroup;
import java.util.ArrayList;
import java.util.List;

public class Activity extends Context {
  public static final int RESULT_OK = -1;
  public final List<Intent> fakeStarted = new ArrayList<>();
  private ViewGroup content;

  public final Application getApplication() { return Application.current(); }
  protected void onCreate(Bundle state) {}
  protected void onResume() {}
  protected void onPause() {}
  protected void onDestroy() {}
  protected void onActivityResult(int request, int result, Intent data) {}
  public void setContentView(int layout) { content = FakeResources.inflate(this, layout); }
  public <V extends View> V findViewById(int id) { return content.findViewById(id); }
  public void startActivity(Intent intent) { fakeStarted.add(intent); }
  public void startActivityForResult(Intent intent, int request) { fakeStarted.add(intent); }

  /** What the system does on the main thread, in order. */
  public void fakeCreate() {
    onCreate(null);
    onResume();
  }
  public void fakeDestroy() {
    onPause();
    onDestroy();
  }
  public void fakeResult(int request, Intent data) { onActivityResult(request, RESULT_OK, data); }
  public ViewGroup fakeContent() { return content; }
}
